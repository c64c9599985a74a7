import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { PeftTrainError } from "../errors.js";
import { toPeftTrainError, withTypedErrors } from "./errors.js";
import { locateLibtorch } from "./locate.js";
import type { NativeEncoder, NativeEngine, OpenOptions } from "./types.js";

interface Loader {
  load(libtorchFolder: string, enginePath: string): NativeEngine;
}

interface NodeGypBuild {
  (folder: string): Loader;
  path(folder: string): string;
}

const PACKAGE_ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

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
  try {
    const native = loader.load(folder, join(dirname(path), "libpeft_train.so"));
    engine = {
      info: () => native.info(),
      open: (options: OpenOptions): Promise<NativeEncoder> =>
        withTypedErrors(native).open(options).then(withTypedErrors),
    };
    return engine;
  } catch (error) {
    throw toPeftTrainError(error);
  }
}

function openLoader(): { loader: Loader; path: string } {
  const nodeGypBuild = createRequire(import.meta.url)("node-gyp-build") as NodeGypBuild;
  try {
    return { loader: nodeGypBuild(PACKAGE_ROOT), path: nodeGypBuild.path(PACKAGE_ROOT) };
  } catch (error) {
    throw new PeftTrainError(
      "ADDON_MISSING",
      `No compiled addon for ${process.platform}-${process.arch} and Node ${process.versions.node} in ${PACKAGE_ROOT}`,
      { cause: error, hint: "Build it with: npm run build:native" },
    );
  }
}
