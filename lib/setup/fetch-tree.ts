import { mkdir, readdir, rmdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { PeftTrainError } from "../errors.js";
import { CUDA_LIBRARY, hasLibrary, readTorchVersion } from "../native/torch-folder.js";
import type { Device } from "./cache.js";
import { OWN_TORCH } from "./errors.js";
import { downloadWheel, removeDownloads, sha256, wrongHash } from "./index-download.js";
import type { Mirror } from "./mirror.js";
import { cudaRuntimeRequirements, minorVersion, PINNED_TORCH } from "./pin.js";
import { pipInstall } from "./pip.js";
import { servesCpu } from "./prune.js";
import { unpackWheel } from "./unpack.js";
import type { PinnedWheel } from "./wheels.js";

export interface FetchTree {
  /** An empty folder, which gets torch/ and nvidia/. */
  tree: string;
  version: string;
  device: Device;
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
  /** Those whose content is known; torch first. */
  wheels: readonly PinnedWheel[];
  /** Downloaded and unpacked so far; not told of what pip does. */
  onBytes: (bytes: number) => void;
}

/** What libtorch_cpu.so of a wheel for CUDA is linked to. */
const CPU_PROJECTS: ReadonlySet<string> = new Set(["torch", "nvidia-cuda-runtime", "nvidia-cuda-cupti"]);
const WHEEL_NAME = /^(.+?)-([^-]+)(?:-\d[^-]*)?-[^-]+-[^-]+-([^-]+)\.whl$/;
const MACHINES: Record<string, string> = { x64: "x86_64", arm64: "aarch64" };

/** By pip. @param scratch its TMPDIR */
export async function fetchByPip(
  fetch: FetchTree,
  scratch: string,
  index: string | undefined,
): Promise<void> {
  const { tree, version, device, env, signal } = fetch;
  const shared = { target: tree, scratch, env, signal, index };
  await pipInstall({ ...shared, requirements: [`torch==${version}`], dependencies: device === "cuda" });
  requireLibtorch(fetch, "as pip installs it here");
  const { cuda } = readTorchVersion(join(tree, "torch")) ?? {};
  // Only the wheel itself knows which CUDA it was linked to; a CPU wheel to none.
  if (device === "cpu" && cuda !== undefined) {
    await pipInstall({ ...shared, requirements: cudaRuntimeRequirements(cuda), dependencies: false });
  }
}

/** By HTTPS, from an index, of the pinned wheels. @param downloads where they wait until all are there */
export async function fetchByHttps(fetch: FetchTree, downloads: string, index: string): Promise<void> {
  const wheels = requirePinned(fetch).filter(
    ({ project }, i, all) =>
      all.findIndex((other) => other.project === project) === i && // of torch the first Python's
      (fetch.device === "cuda" || CPU_PROJECTS.has(project)),
  );
  let before = 0;
  const files: string[] = [];
  try {
    for (const wheel of wheels) {
      let here = 0;
      const onBytes = (bytes: number): void => {
        here = bytes;
        fetch.onBytes(before + here);
      };
      const { env, signal } = fetch;
      files.push(await downloadWheel(wheel, { index, folder: downloads, env, signal, onBytes }));
      before += here;
    }
  } catch (error) {
    await rmdir(downloads).catch(() => {}); // where nothing is in it to go on with
    throw error;
  }
  await unpackAll(files, fetch, before);
  requireLibtorch(fetch, `as ${new URL(index).host} has it`);
  await removeDownloads(files);
}

/** From wheels that are on this machine. */
export async function fetchFromFiles(
  fetch: FetchTree,
  { folder, wheel }: Extract<Mirror, { folder: string }>,
): Promise<void> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".whl")).sort();
  const torch = wheel === undefined ? findTorch(names, fetch.version, folder) : basename(wheel);
  requireVersion(torch, fetch.version);
  await checkHash(folder, torch, fetch.wheels);
  const written = await unpackAll([join(folder, torch)], fetch, 0);
  const found = requireLibtorch(fetch, `in ${join(folder, torch)}`);
  if (found.cuda === undefined) return;
  const others = requirePinned(fetch).filter(
    ({ project }) => project !== "torch" && (fetch.device === "cuda" || CPU_PROJECTS.has(project)),
  );
  // A wheel for another CUDA than the pinned one has others beside it: those are taken as they are called.
  const files = others.map(({ project, file }) => {
    const prefix = project.replaceAll("-", "_").replace(/_cu\d+$/, "");
    const found = names.includes(file)
      ? file
      : names.find((name) => WHEEL_NAME.exec(name)?.[1]?.replace(/_cu\d+$/, "") === prefix);
    if (found !== undefined) return found;
    throw new PeftTrainError("DOWNLOAD_FAILED", `${torch} needs ${file}, which is not in ${folder}`, {
      hint: `Fetch it where there is a network: python3 -m pip download --no-deps ${project}==${WHEEL_NAME.exec(file)?.[2]} -d ${folder}`,
    });
  });
  for (const file of files) await checkHash(folder, file, fetch.wheels);
  await unpackAll(
    files.map((file) => join(folder, file)),
    fetch,
    written,
  );
}

async function unpackAll(files: readonly string[], fetch: FetchTree, before: number): Promise<number> {
  await mkdir(fetch.tree, { recursive: true });
  let done = before;
  for (const file of files) {
    let here = 0;
    await unpackWheel(file, fetch.tree, {
      // Python's files serve nothing here; all libraries stay for CUDA.
      keep: fetch.device === "cpu" ? servesCpu : (path) => servesCpu(path) || /\.so(\.|$)/.test(path),
      signal: fetch.signal,
      onBytes: (bytes) => {
        here = bytes;
        fetch.onBytes(done + here);
      },
    });
    done += here;
  }
  return done;
}

function findTorch(names: readonly string[], version: string, folder: string): string {
  const machine = MACHINES[process.arch] ?? process.arch;
  const found = names.find((name) => {
    const [, project, built, platform] = WHEEL_NAME.exec(name) ?? [];
    return project === "torch" && built?.split("+")[0] === version && platform?.endsWith(machine);
  });
  if (found !== undefined) return found;
  throw new PeftTrainError(
    "DOWNLOAD_FAILED",
    `There is no wheel of torch ${version} for ${machine} in ${folder}`,
    {
      hint: `Fetch it where there is a network: python3 -m pip download --no-deps torch==${version} -d ${folder}`,
    },
  );
}

function requireVersion(wheel: string, version: string): void {
  const [, project, built] = WHEEL_NAME.exec(wheel) ?? [];
  if (project === "torch" && built !== undefined && minorVersion(built) === minorVersion(version)) return;
  throw new PeftTrainError(
    "LIBTORCH_INCOMPATIBLE",
    `${wheel} is not a wheel of torch ${minorVersion(version)}`,
    {
      hint: `Fetch one: python3 -m pip download --no-deps torch==${version}`,
    },
  );
}

/** Of wheels that are pinned; others are held against their own list of hashes alone. */
async function checkHash(folder: string, file: string, wheels: readonly PinnedWheel[]): Promise<void> {
  const pinned = wheels.find((wheel) => wheel.file === file);
  if (pinned === undefined) return;
  const hash = await sha256(join(folder, file));
  if (hash !== pinned.sha256) throw wrongHash(pinned, hash, folder);
}

function requirePinned({ version, wheels }: FetchTree): readonly PinnedWheel[] {
  if (wheels.length > 0 && version === PINNED_TORCH) return wheels;
  throw new PeftTrainError(
    "DOWNLOAD_FAILED",
    `Without pip only torch ${PINNED_TORCH} can be fetched, for Linux on x64 and arm64; this is ${version} for ${process.platform}-${process.arch}`,
    { hint: `Install python3 and python3-pip, or ${OWN_TORCH}.` },
  );
}

function requireLibtorch(
  { tree, version, device }: FetchTree,
  where: string,
): { version: string; cuda: string | undefined } {
  const torch = join(tree, "torch");
  const found = readTorchVersion(torch);
  const whole = hasLibrary(torch) && (device === "cpu" || hasLibrary(torch, CUDA_LIBRARY));
  if (whole && found !== undefined) return found;
  throw new PeftTrainError("DOWNLOAD_FAILED", `torch ${version} ${where} has no libtorch for ${device}`, {
    hint: "Point PEFT_TRAIN_LIBTORCH at a torch/ or libtorch/ folder that you have.",
  });
}
