// Lays out what the tarball holds, apart from the checkout: `files` of package.json, and compiled code as a prebuild.
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** Always packed by npm, listed or not. */
const ALWAYS = ["package.json", "README.md", "LICENSE"];
/** Of build/Release, what runs. */
const BUILT = ["peft_train.node", "libpeft_train.so", "libtorch-version"];

/**
 * @param {string} root the checkout
 * @param {string} target an empty folder
 * @param {string | undefined} prebuilds a folder of PLATFORM-ARCH folders; build/Release where there is none
 */
export function stage(root, target, prebuilds) {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const listed = manifest.files.filter((name) => !name.startsWith("!") && name !== "prebuilds");
  for (const name of [...ALWAYS, ...listed]) {
    cpSync(join(root, name), join(target, name), {
      recursive: true,
      filter: (file) => hasSource(root, file),
    });
  }
  // It serves a checkout; npm would ask a user whether it may run.
  delete manifest.scripts.prepare;
  writeFileSync(join(target, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
  if (prebuilds !== undefined) {
    cpSync(prebuilds, join(target, "prebuilds"), { recursive: true });
    return;
  }
  const folder = join(target, "prebuilds", `${process.platform}-${process.arch}`);
  mkdirSync(folder, { recursive: true });
  for (const name of BUILT) cpSync(join(root, "build", "Release", name), join(folder, name));
}

/** dist/ of a checkout may hold what was compiled from files that are gone. */
function hasSource(root, file) {
  const compiled = /^(.*)\.(js|d\.ts|js\.map)$/.exec(file.slice(join(root, "dist").length + 1));
  if (!file.startsWith(join(root, "dist")) || compiled === null) return true;
  return existsSync(join(root, "lib", `${compiled[1]}.ts`));
}

// node scripts/stage.mjs FOLDER: with build/Release as the prebuild.
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [target] = process.argv.slice(2);
  if (target === undefined) {
    console.error("usage: node scripts/stage.mjs FOLDER");
    process.exit(2);
  }
  stage(fileURLToPath(new URL("..", import.meta.url)), target, undefined);
}
