/** The torch release that set-up fetches where no other is asked for. Everything about versions is decided here. */
export const PINNED_TORCH = "2.13.0";

/** Minor versions of torch 2 that the engine compiles against, both ends included. */
export const SUPPORTED_TORCH = { oldest: "2.11", newest: "2.15" } as const;

/** What the pinned wheel weighs, for progress and the check for space. Bytes; measured on linux-x64. */
export const TORCH_BYTES = { download: 527e6, unpacked: 1_130e6, kept: 488e6 } as const;

/** What a full install for CUDA weighs: the download and the unpacked files together, about. Bytes. */
export const CUDA_BYTES = { download: 2_500e6, unpacked: 5_000e6 } as const;

/** "2.13.0+cu130" -> "2.13": libtorch's C++ ABI holds within a minor version and changes with the next. */
export function minorVersion(version: string): string {
  return version.split(".", 2).join(".");
}

export function isSupported(version: string): boolean {
  const [major, minor] = numbers(version);
  const [oldestMajor, oldest] = numbers(SUPPORTED_TORCH.oldest);
  const [, newest] = numbers(SUPPORTED_TORCH.newest);
  return major === oldestMajor && minor >= oldest && minor <= newest;
}

/**
 * The two packages whose libraries libtorch_cpu.so of a CUDA wheel is linked to, as requirements of pip.
 *
 * @param cuda the wheel's own `torch.version.cuda`, as "13.0". From CUDA 13 on the names carry no "-cu12".
 */
export function cudaRuntimeRequirements(cuda: string): string[] {
  const [major, minor] = numbers(cuda);
  const suffix = major >= 13 ? "" : `-cu${major}`;
  return ["nvidia-cuda-runtime", "nvidia-cuda-cupti"].map((name) => `${name}${suffix}==${major}.${minor}.*`);
}

function numbers(version: string): [major: number, minor: number] {
  const [major, minor] = version.split(".");
  return [Number.parseInt(major ?? "", 10), Number.parseInt(minor ?? "", 10)];
}
