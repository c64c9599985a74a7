import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface FakeTorch {
  version: string;
  cuda?: string | undefined;
  /** Default: version.py, as in a wheel. "archive" has build-version instead; "none" neither. */
  versionFile?: "wheel" | "archive" | "none";
  /** Files of lib/, each with its name as content. Default: what looks whole. */
  libraries?: readonly string[];
}

/** A folder that looks like a wheel's torch/ or an unpacked libtorch/ to whoever reads files only. */
export function makeFakeTorch(folder: string, options: FakeTorch): string {
  const { version, cuda, versionFile = "wheel" } = options;
  mkdirSync(join(folder, "lib"), { recursive: true });
  mkdirSync(join(folder, "include"), { recursive: true });
  writeFileSync(join(folder, "include", "torch.h"), "//\n");
  const whole = ["libtorch_cpu.so", "libc10.so", ...(cuda === undefined ? [] : ["libtorch_cuda.so"])];
  for (const name of options.libraries ?? whole) writeFileSync(join(folder, "lib", name), name);
  const local = cuda === undefined ? "cpu" : `cu${cuda.replace(".", "")}`;
  if (versionFile === "archive") writeFileSync(join(folder, "build-version"), `${version}+${local}\n`);
  if (versionFile === "wheel") {
    const value = cuda === undefined ? "None" : `'${cuda}'`;
    const lines = [
      "from typing import Optional",
      "__all__ = ['__version__', 'debug', 'cuda']",
      `__version__ = '${version}+${local}'`,
      "debug = False",
      `cuda: Optional[str] = ${value}`,
    ];
    writeFileSync(join(folder, "version.py"), `${lines.join("\n")}\n`);
  }
  return folder;
}
