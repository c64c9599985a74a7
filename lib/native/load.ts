import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { PeftTrainError } from "../errors.js";
import { toPeftTrainError, withTypedErrors } from "./errors.js";
import { locateLibtorch } from "./locate.js";
import { BUILD_COMMAND, PACKAGE_ROOT } from "./package-root.js";
import { libraryFile } from "./torch-folder.js";
import type { CudaDriver, NativeEncoder, NativeEngine, OpenOptions } from "./types.js";

interface Loader {
  load(
    libtorchFolder: string,
    enginePath: string,
  ): NativeEngine & { interfaceVersion?: number; noCuda?: string };
  /** Missing in an addon of an earlier version. */
  cudaDriver?(): CudaDriver;
}

interface NodeGypBuild {
  (folder: string): Loader;
  path(folder: string): string;
}

/** Of native/binding/addon.cc: a compiled addon that stayed behind its TypeScript would fail in the middle of work. */
const INTERFACE_VERSION = 12;

let engine: NativeEngine | undefined;

/**
 * Finds libtorch, brings it and the engine into the process and returns the engine; once a thread, 0.3 to 1 s. The only
 * place that loads a `.node`.
 *
 * @throws PeftTrainError LIBTORCH_MISSING, LIBTORCH_INCOMPATIBLE, ADDON_MISSING
 */
export function loadEngine(): NativeEngine {
  if (engine !== undefined) return engine;
  const { loader, path } = openLoader();
  const { folder } = locateLibtorch();
  limitSpinning(process.env);
  try {
    const library = join(dirname(path), libraryFile("peft_train"));
    const native = loader.load(folder, library);
    checkInterface(native.interfaceVersion, library);
    const typed = withTypedErrors(native);
    engine = {
      info: () => ({ ...typed.info(), ...(native.noCuda !== undefined && { noCuda: native.noCuda }) }),
      open: (options: OpenOptions): Promise<NativeEncoder> =>
        typed
          .open(options)
          .then(withTypedErrors, (error) => Promise.reject(withReason(error, native.noCuda))),
      quantize: (options, onProgress) => typed.quantize(options, onProgress),
    };
    return engine;
  } catch (error) {
    throw toPeftTrainError(error);
  }
}

/** @throws PeftTrainError ADDON_MISSING for an engine that was built from other sources than this TypeScript. */
export function checkInterface(version: number | undefined, library: string): void {
  if (version === INTERFACE_VERSION) return;
  throw new PeftTrainError(
    "ADDON_MISSING",
    `${library} was built for another version of this package: its interface is ${version ?? "unnumbered"}, expected ${INTERFACE_VERSION}`,
    { hint: `Build it again with: ${BUILD_COMMAND}` },
  );
}

/**
 * Path of the `.node` for this machine, which is loaded to find out, without libtorch.
 * @throws ADDON_MISSING
 */
export function addonPath(): string {
  return openLoader().path;
}

/**
 * What the CUDA driver says, without libtorch. A broken driver may crash or hang: call it in a process of its own.
 * @throws ADDON_MISSING
 */
export function cudaDriver(): CudaDriver {
  const { loader, path } = openLoader();
  if (loader.cudaDriver !== undefined) return loader.cudaDriver();
  throw new PeftTrainError("ADDON_MISSING", `${path} was built for an earlier version of this package`, {
    hint: `Build it again with: ${BUILD_COMMAND}`,
  });
}

/** A GPU that libtorch does not see because its CUDA half was not loaded. */
export function withReason(error: unknown, noCuda: string | undefined): unknown {
  const isDevice = error instanceof PeftTrainError && error.code === "DEVICE_UNAVAILABLE";
  if (noCuda === undefined || !isDevice) return error;
  return new PeftTrainError(error.code, `${error.message}: CUDA's libraries do not load (${noCuda})`, {
    cause: error,
    hint: "Run: npx peft-train setup --force --device cuda; or use --device cpu. npx peft-train doctor says more.",
  });
}

/**
 * Threads of GNU OpenMP wait for each other in a loop of 300,000 turns before they sleep: milliseconds of a core that
 * something else may need. On two cores with five other busy processes a training step took 2.5 times as long for it.
 * Read once, when libgomp is loaded.
 */
function limitSpinning(env: NodeJS.ProcessEnv): void {
  if (env.OMP_WAIT_POLICY === undefined) env.GOMP_SPINCOUNT ??= "10000";
}

function openLoader(): { loader: Loader; path: string } {
  const nodeGypBuild = createRequire(import.meta.url)("node-gyp-build") as NodeGypBuild;
  try {
    return { loader: nodeGypBuild(PACKAGE_ROOT), path: nodeGypBuild.path(PACKAGE_ROOT) };
  } catch (error) {
    throw new PeftTrainError(
      "ADDON_MISSING",
      `No compiled addon for ${process.platform}-${process.arch} and Node ${process.versions.node} in ${PACKAGE_ROOT}`,
      { cause: error, hint: `Build it with: ${BUILD_COMMAND}` },
    );
  }
}
