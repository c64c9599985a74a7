// npm run check:cuda: compiles every CUDA kernel with NVRTC for every architecture that the project names, and holds
// registers and spilled bytes under a cap. Takes no GPU and no driver.
//
// NVRTC is what PEFT_TRAIN_NVRTC names (the library or its folder), else that of the libtorch in use (a CUDA one brings
// it), else the pinned wheel, fetched by pip into the cache folder. Where none can be had the check is skipped: it says why and
// ends with 77.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** The NVRTC of the torch wheel that set-up pins. */
const WHEEL = "nvidia-cuda-nvrtc==13.0.88";
const SKIPPED = 77;
const root = fileURLToPath(new URL("..", import.meta.url));

const { cacheFolder } = await compiled("setup/cache.js");
const { pipInstall } = await compiled("setup/pip.js");
const { locateLibtorch } = await compiled("native/locate.js");

const folders = await nvrtcFolders();
if (folders === undefined) process.exit(process.exitCode ?? SKIPPED);
const build = join(root, "build", "check-cuda");
const define = ["-DCMAKE_BUILD_TYPE=Release"];
run("cmake", ["-S", join(root, "test/native/cuda"), "-B", build, "--log-level=WARNING", ...define], "pipe");
run("cmake", ["--build", build, "--target", "check_nvrtc"], "pipe");
run(join(build, "Release", "check_nvrtc"), folders, "inherit");

function compiled(file) {
  const url = new URL(`../dist/${file}`, import.meta.url);
  if (existsSync(url)) return import(url.href);
  console.error("dist/ is not there; run: npm run build:ts");
  process.exit(1);
}

/** Folders to look in, none where PEFT_TRAIN_NVRTC says it all; undefined where there is no NVRTC. */
async function nvrtcFolders() {
  if (process.env.PEFT_TRAIN_NVRTC) return [];
  let tree;
  try {
    tree = locateLibtorch({ forBuild: true }).folder;
  } catch {
    // No libtorch, or one that does not fit: the wheel will do.
  }
  const found = tree === undefined ? [] : holding(tree);
  if (found.length > 0) return found;
  const fetched = join(cacheFolder(), WHEEL.replace("==", "-"));
  if (holding(fetched).length === 0 && !(await fetchWheel(fetched))) return undefined;
  return holding(fetched);
}

/** The folders of installed wheels that hold NVRTC. */
function holding(tree) {
  const nvidia = join(tree, "nvidia");
  if (!existsSync(nvidia)) return [];
  return readdirSync(nvidia)
    .map((name) => join(nvidia, name, "lib"))
    .filter((lib) => existsSync(lib) && readdirSync(lib).some((file) => file.startsWith("libnvrtc.so")));
}

/** Whole or not at all. */
async function fetchWheel(folder) {
  console.log(`Fetching ${WHEEL} into ${folder}`);
  mkdirSync(cacheFolder(), { recursive: true });
  const temporary = mkdtempSync(`${folder}.`);
  const scratch = join(temporary, "scratch");
  mkdirSync(scratch);
  const controller = new AbortController();
  const stop = () => controller.abort();
  process.once("SIGINT", stop).once("SIGTERM", stop);
  try {
    const target = join(temporary, "tree");
    await pipInstall({
      ...{ requirements: [WHEEL], target, scratch, dependencies: false },
      ...{ env: process.env, signal: controller.signal },
    });
    rmSync(folder, { recursive: true, force: true });
    renameSync(target, folder);
    return true;
  } catch (error) {
    if (controller.signal.aborted) process.exitCode = 130;
    console.log(
      `check:cuda is skipped: there is no NVRTC here, and ${WHEEL} could not be fetched: ${error.message}`,
    );
    return false;
  } finally {
    rmSync(temporary, { recursive: true, force: true });
    process.off("SIGINT", stop).off("SIGTERM", stop);
  }
}

function run(command, args, stdio) {
  const { status, signal, error, stdout, stderr } = spawnSync(command, args, {
    stdio: ["ignore", stdio, stdio],
  });
  if (status === 0) return;
  console.error(`${stdout ?? ""}${stderr ?? ""}`);
  console.error(`check:cuda failed: ${command} ended with ${error?.message ?? signal ?? `status ${status}`}`);
  process.exit(1);
}
