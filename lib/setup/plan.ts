import { PeftTrainError } from "../errors.js";
import { engineTorchVersion } from "../native/locate.js";
import { BUILD_COMMAND } from "../native/package-root.js";
import { cacheFolder, type Device, libtorchFolder } from "./cache.js";
import { cudaVersion, examineGpu, type Gpu } from "./gpu.js";
import { DEFAULT_INDEX, type Mirror, parseMirror } from "./mirror.js";
import {
  CUDA_WHEELS,
  cudaWheelFor,
  isSupported,
  leastWheelFor,
  minorVersion,
  PINNED_TORCH,
  SUPPORTED_TORCH,
} from "./pin.js";
import { findPip, pythonCommand } from "./pip.js";

export interface PlanOptions {
  /** "auto" takes a GPU where there is one whose driver is new enough. */
  device?: Device | "auto";
  /** As "2.13" or "2.13.0". Default: the version that the engine was compiled for. */
  torch?: string | undefined;
  /** Address of a package index, a folder of wheels, or torch's wheel. Default: PEFT_TRAIN_MIRROR. */
  mirror?: string | undefined;
  /** Default: the package's cache folder. */
  cache?: string | undefined;
  /** Environment variables. Default: those of the process. */
  env?: NodeJS.ProcessEnv;
  /** To compile against: the pinned version, whatever an older build asks for. */
  forBuild?: boolean;
  /** In place of what `examineGpu` finds. */
  gpu?: Gpu;
}

/** How wheels are had. `index` undefined: the user's own settings of pip. */
export type Way =
  | { kind: "pip"; index: string | undefined }
  | { kind: "https"; index: string }
  | { kind: "files"; mirror: Extract<Mirror, { folder: string }> };

export interface Plan {
  version: string;
  device: Device;
  cache: string;
  /** Where it will be. */
  folder: string;
  way: Way;
  /** What is worth a word: why a GPU is passed over, why pip is. */
  notes: string[];
}

/**
 * What set-up would do; fetches nothing.
 * @throws USAGE, FILE_NOT_FOUND, LIBTORCH_INCOMPATIBLE, LIBTORCH_MISSING (this is no Linux), DEVICE_UNAVAILABLE, DOWNLOAD_FAILED
 */
export async function planInstall(options: PlanOptions = {}): Promise<Plan> {
  const env = options.env ?? process.env;
  const version = wantedVersion(options);
  if (process.platform !== "linux") {
    throw new PeftTrainError(
      "LIBTORCH_MISSING",
      `Set-up fetches libtorch for Linux alone; this is ${process.platform}`,
      { hint: "Unpack a libtorch for this system and set PEFT_TRAIN_LIBTORCH to its folder." },
    );
  }
  const given = options.mirror || env.PEFT_TRAIN_MIRROR;
  const mirror = given ? parseMirror(given) : undefined;
  const { device, index, notes } = await chooseDevice(options, env);
  const cache = options.cache ?? cacheFolder(env);
  const plan = { version, device, cache, folder: libtorchFolder(cache, version, device) };
  if (mirror !== undefined && "folder" in mirror) {
    return { ...plan, way: { kind: "files", mirror }, notes };
  }
  const pip = await findPip(env);
  if ("version" in pip) return { ...plan, way: { kind: "pip", index: mirror?.index ?? index }, notes };
  if (env.PEFT_TRAIN_PYTHON) {
    throw new PeftTrainError("DOWNLOAD_FAILED", `PEFT_TRAIN_PYTHON=${env.PEFT_TRAIN_PYTHON}: ${pip.reason}`, {
      hint: "Name a Python 3.10 or newer with pip, or unset PEFT_TRAIN_PYTHON to do without.",
    });
  }
  if (index !== undefined && mirror === undefined) {
    throw new PeftTrainError(
      "DOWNLOAD_FAILED",
      `${notes.join(" ")} That one is fetched by pip alone, and ${pip.reason}`,
      {
        hint: `Install ${pythonCommand(env)} and pip, or update the driver to ${CUDA_WHEELS[0]?.driver}.`,
      },
    );
  }
  const from = mirror?.index ?? (env.PIP_INDEX_URL?.replace(/\/+$/, "") || DEFAULT_INDEX);
  return { ...plan, way: { kind: "https", index: from }, notes: [...notes, `Without pip: ${pip.reason}.`] };
}

/** @throws USAGE, LIBTORCH_INCOMPATIBLE */
function wantedVersion({ torch, forBuild }: PlanOptions): string {
  const built = forBuild ? PINNED_TORCH : engineTorchVersion();
  if (torch === undefined) return built;
  const { oldest, newest } = SUPPORTED_TORCH;
  if (!/^\d+\.\d+(\.\d+)?$/.test(torch) || !isSupported(torch)) {
    throw new PeftTrainError("USAGE", `--torch=${torch}: expected a version from ${oldest} to ${newest}`, {
      hint: `Leave it out: npx peft-train setup fetches ${built}, which the engine was compiled for.`,
    });
  }
  if (minorVersion(torch) === minorVersion(built)) return /\..*\./.test(torch) ? torch : built;
  throw new PeftTrainError(
    "LIBTORCH_INCOMPATIBLE",
    `--torch=${torch}: the engine was compiled for libtorch ${minorVersion(built)}, and runs with no other minor version`,
    {
      hint: `Leave --torch out, or compile for it: python3 -m pip install --no-deps --target /opt/torch "torch==${minorVersion(torch)}.*" && export PEFT_TRAIN_LIBTORCH=/opt/torch && ${BUILD_COMMAND}`,
    },
  );
}

interface Choice {
  device: Device;
  /** Where the wheel for an older driver is. */
  index?: string;
  notes: string[];
}

/** @throws DEVICE_UNAVAILABLE where CUDA was asked for and the driver is too old. */
async function chooseDevice(options: PlanOptions, env: NodeJS.ProcessEnv): Promise<Choice> {
  const { device = "cpu" } = options;
  if (device === "cpu") return { device, notes: [] };
  const gpu = options.gpu ?? (await examineGpu(env));
  const asked = device === "cuda";
  if (!gpu.present) {
    // A container image is often built where there is no GPU.
    return asked
      ? { device, notes: ["There is no NVIDIA GPU here; fetching for CUDA as asked."] }
      : { device: "cpu", notes: [] };
  }
  const { cuda, devices, driver = "of an unknown version" } = gpu;
  if (cuda === undefined || devices.length === 0) {
    const why = `The GPU here cannot be used: ${gpu.failure ?? "its driver shows no device"}.`;
    return asked
      ? { device, notes: [why] }
      : { device: "cpu", notes: [`${why} Fetching for the CPU; see: npx peft-train doctor`] };
  }
  const capability = Number(devices[0]?.capability);
  const wheel = cudaWheelFor(cuda, capability);
  if (wheel === undefined) {
    const least = leastWheelFor(capability);
    const why =
      least === undefined
        ? `The GPU here, ${devices[0]?.name} of compute capability ${devices[0]?.capability}, is too old for libtorch`
        : `The driver, ${driver}, runs CUDA ${cudaVersion(cuda)}; libtorch needs a driver from ${least.driver} on`;
    if (!asked) return { device: "cpu", notes: [`${why}. Fetching for the CPU.`] };
    throw new PeftTrainError("DEVICE_UNAVAILABLE", why, {
      hint: `${least === undefined ? "Run" : "Update the driver and run again, or"}: npx peft-train setup --device cpu`,
    });
  }
  if (wheel.index === undefined) return { device: "cuda", notes: [] };
  const note = `The driver, ${driver}, runs CUDA ${cudaVersion(cuda)}: taking libtorch for CUDA ${wheel.cuda} from ${wheel.index}.`;
  return { device: "cuda", index: wheel.index, notes: [note] };
}
