import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, realpathSync, symlinkSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { PeftTrainError } from "../errors.js";
import { cacheFolder, type Device, parseLibtorchFolder } from "../setup/cache.js";
import { isSupported, minorVersion, PINNED_TORCH, SUPPORTED_TORCH } from "../setup/pin.js";
import { folderNames, installedTorch, type TorchCandidate } from "./installed-torch.js";
import { BUILD_COMMAND, PACKAGE_ROOT } from "./package-root.js";
import { CUDA_LIBRARY, hasLibrary, readTorchVersion } from "./torch-folder.js";

export interface LibtorchLocation {
  /** Holds torch/, and nvidia/ beside it where that torch was built for CUDA. */
  folder: string;
  /** As "2.13.0". */
  version: string;
  /** How it was found: "PEFT_TRAIN_LIBTORCH", "the cache", "the virtual environment" or the path of a python3. */
  source: string;
}

export interface LocateOptions {
  env?: NodeJS.ProcessEnv;
  /** The torch version the engine was compiled for; a libtorch of the same minor version fits. */
  builtFor?: string;
  /** To compile against: then PEFT_TRAIN_LIBTORCH may name any supported version. */
  forBuild?: boolean;
  /** "cuda" passes over what serves the CPU alone. */
  device?: Device;
}

const SETUP_HINT = "Run: npx peft-train setup; or, in a program, first: await ensureLibtorch()";

/**
 * Finds libtorch by looking at files: PEFT_TRAIN_LIBTORCH, the package's cache, the virtual environment's torch,
 * python3's torch; the first whose minor version is the engine's.
 *
 * @throws PeftTrainError LIBTORCH_MISSING, LIBTORCH_INCOMPATIBLE
 */
export function locateLibtorch(options: LocateOptions = {}): LibtorchLocation {
  const env = options.env ?? process.env;
  const wanted = options.builtFor ?? (options.forBuild ? PINNED_TORCH : engineTorchVersion());
  if (env.PEFT_TRAIN_LIBTORCH) return fromEnvironment(env.PEFT_TRAIN_LIBTORCH, wanted, options, env);

  const others: string[] = [];
  for (const { torch, source } of candidates(env)) {
    if (!hasLibrary(torch) || (options.device === "cuda" && !hasLibrary(torch, CUDA_LIBRARY))) continue;
    const version = readTorchVersion(torch)?.version;
    if (version === undefined) continue;
    if (minorVersion(version) === minorVersion(wanted)) return { folder: dirname(torch), version, source };
    others.push(`${version} in ${torch}`);
  }
  if (others.length === 0) {
    throw new PeftTrainError(
      "LIBTORCH_MISSING",
      `No libtorch ${minorVersion(wanted)} in the cache ${cacheFolder(env)}, the virtual environment or python3`,
      { hint: SETUP_HINT },
    );
  }
  throw new PeftTrainError(
    "LIBTORCH_INCOMPATIBLE",
    `The engine was built for libtorch ${minorVersion(wanted)}; found only ${others.join(", ")}`,
    { hint: SETUP_HINT },
  );
}

/** The torch version the compiled engine needs: what its build wrote beside it, the pin where there is none yet. */
export function engineTorchVersion(root: string = PACKAGE_ROOT): string {
  for (const folder of ["build/Release", `prebuilds/${process.platform}-${process.arch}`]) {
    const file = join(root, folder, "libtorch-version");
    if (existsSync(file)) return readFileSync(file, "utf8").trim() || PINNED_TORCH;
  }
  return PINNED_TORCH;
}

function* candidates(env: NodeJS.ProcessEnv): Generator<TorchCandidate> {
  yield* cached(cacheFolder(env));
  yield* installedTorch(env);
}

/** Of one version, a full install comes before one that serves the CPU alone. */
function cached(cache: string): TorchCandidate[] {
  return folderNames(cache)
    .filter((name) => parseLibtorchFolder(name) !== undefined)
    .sort()
    .reverse()
    .map((name) => ({ torch: join(cache, name, "torch"), source: "the cache" }));
}

function fromEnvironment(
  value: string,
  wanted: string,
  options: LocateOptions,
  env: NodeJS.ProcessEnv,
): LibtorchLocation {
  const given = resolve(value);
  const torch = [join(given, "torch"), given].find((folder) => hasLibrary(folder));
  if (torch === undefined) {
    throw new PeftTrainError(
      "LIBTORCH_MISSING",
      `PEFT_TRAIN_LIBTORCH=${value} is neither a torch/ or libtorch/ folder nor one that holds torch/`,
      { hint: `Point it at one, or unset it and run: npx peft-train setup` },
    );
  }
  if (options.device === "cuda" && !hasLibrary(torch, CUDA_LIBRARY)) {
    throw new PeftTrainError("LIBTORCH_MISSING", `PEFT_TRAIN_LIBTORCH=${value} serves the CPU alone`, {
      hint: "Point it at a torch for CUDA, or unset it and run: npx peft-train setup --device cuda",
    });
  }
  const version = readTorchVersion(torch)?.version;
  if (version === undefined) {
    throw new PeftTrainError(
      "LIBTORCH_INCOMPATIBLE",
      `${torch} does not say its version: neither version.py nor build-version is there`,
      { hint: "Point PEFT_TRAIN_LIBTORCH at a complete torch/ or libtorch/ folder." },
    );
  }
  const fits = options.forBuild ? isSupported(version) : minorVersion(version) === minorVersion(wanted);
  if (!fits) {
    const needed = options.forBuild
      ? `${SUPPORTED_TORCH.oldest} to ${SUPPORTED_TORCH.newest} are supported`
      : `the engine was built for ${minorVersion(wanted)}`;
    throw new PeftTrainError(
      "LIBTORCH_INCOMPATIBLE",
      `PEFT_TRAIN_LIBTORCH=${value} is libtorch ${version}; ${needed}`,
      {
        hint: options.forBuild
          ? "Point it at another, or unset it."
          : `Unset it and run: npx peft-train setup; or rebuild for it with: ${BUILD_COMMAND}`,
      },
    );
  }
  return { folder: holder(torch, env), version, source: "PEFT_TRAIN_LIBTORCH" };
}

/** The folder that holds `torch` under that very name; an unpacked libtorch/ gets a link of the name in the cache. */
function holder(torch: string, env: NodeJS.ProcessEnv): string {
  if (basename(torch) === "torch") return dirname(torch);
  const target = realpathSync(torch);
  const name = createHash("sha256").update(target).digest("hex").slice(0, 16);
  const folder = join(cacheFolder(env), "links", name);
  try {
    mkdirSync(folder, { recursive: true });
    if (!existsSync(join(folder, "torch"))) symlinkSync(target, join(folder, "torch"));
  } catch (cause) {
    // Another process may have made the same link between the two calls.
    if (existsSync(join(folder, "torch", "lib"))) return folder;
    throw new PeftTrainError("OUTPUT_UNWRITABLE", `cannot link ${target} into the cache as ${folder}/torch`, {
      cause,
      hint: "Rename that folder to torch, or set PEFT_TRAIN_CACHE to a folder that you can write.",
    });
  }
  return folder;
}
