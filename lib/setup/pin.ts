/** The torch release that set-up fetches where no other is asked for. Everything about versions is decided here. */
export const PINNED_TORCH = "2.13.0";

/** Minor versions of torch 2 that the engine compiles against, both ends included. */
export const SUPPORTED_TORCH = { oldest: "2.11", newest: "2.15" } as const;

/** What the pinned wheel weighs, for progress and the check for space. Bytes; measured on linux-x64. */
export const TORCH_BYTES = { download: 527e6, unpacked: 1_130e6, kept: 488e6 } as const;

/** What a full install for CUDA weighs: the download and the unpacked files together, about. Bytes. */
export const CUDA_BYTES = { download: 2_500e6, unpacked: 5_000e6 } as const;

/** A build of the pinned release for CUDA, and what it takes. */
export interface CudaWheel {
  /** The CUDA that it brings along. */
  cuda: string;
  /** The oldest CUDA of a driver that runs it, as 12000 for 12.0: any of the same major version. */
  driverCuda: number;
  /** The first series of drivers with that. */
  driver: string;
  /** The compute capabilities that it has code for: from, and below. */
  capability: readonly [from: number, below: number];
  /** Where it is; undefined for the index that pip asks anyway. */
  index?: string;
}

/** Newest first. */
export const CUDA_WHEELS: readonly CudaWheel[] = [
  { cuda: "13.0", driverCuda: 13000, driver: "580", capability: [7.5, Number.POSITIVE_INFINITY] },
  {
    cuda: "12.6",
    driverCuda: 12000,
    driver: "525",
    capability: [5.0, 10.0], // Blackwell takes CUDA 12.8
    index: "https://download.pytorch.org/whl/cu126",
  },
];

/** The newest that runs on this driver and on a device of this compute capability. */
export function cudaWheelFor(driverCuda: number, capability: number): CudaWheel | undefined {
  return wheelsOf(capability).find((wheel) => driverCuda >= wheel.driverCuda);
}

/** The wheel for a device that is content with the oldest driver: what it would take where none runs. */
export function leastWheelFor(capability: number): CudaWheel | undefined {
  return wheelsOf(capability).at(-1);
}

function wheelsOf(capability: number): CudaWheel[] {
  return CUDA_WHEELS.filter(({ capability: [from, below] }) => capability >= from && capability < below);
}

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
