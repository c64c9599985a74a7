/** 73,011 */
export function count(value: number): string {
  return value.toLocaleString("en-US");
}

/** 1 step, 1,141 steps */
export function counted(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** 0.8903 */
export function metric(value: number | null): string {
  return value === null ? "undefined" : value.toFixed(4);
}

/** 5e-4, 4.85e-4, 0: short, and as one would type it. */
export function rate(value: number): string {
  return value === 0 ? "0" : value.toExponential(2).replace(/\.?0+e/, "e");
}

/** 884,736 bytes as 864 KB. */
export function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  const inKilobytes = bytes / 1024;
  return inKilobytes < 1024 ? `${Math.round(inKilobytes)} KB` : `${(inKilobytes / 1024).toFixed(1)} MB`;
}

/** 83 seconds as 1:23, an hour more as 1:01:23. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value: number): string => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}
