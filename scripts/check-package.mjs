// What a tarball must hold, may hold, and may weigh.
import { spawnSync } from "node:child_process";

/** Without data/, which has the demo's encoder. */
export const LARGEST_BYTES = 5e6;

const NEEDED = [
  "package.json",
  "README.md",
  "LICENSE",
  "CHANGELOG.md",
  "bin/peft-train.js",
  "dist/index.js",
  "dist/index.d.ts",
  "dist/cli/main.js",
  "dist/doctor/probe-main.js",
  "dist/native/driver-main.js",
  "data/encoder/model.safetensors",
  "data/pairs/train.csv",
  "docs/build.md",
  // To compile it where there is no prebuild.
  "CMakeLists.txt",
  "binding.gyp",
  "native/loader.cc",
  "native/cuda/embed.cmake",
  "scripts/build-native.mjs",
  "scripts/build-ts.mjs",
  "scripts/libtorch.mjs",
];
const ALLOWED =
  /^(package\.json|README\.md|LICENSE|CHANGELOG\.md|CMakeLists\.txt|binding\.gyp|bin\/[\w-]+\.js|assets\/[\w-]+\.(css|js|svg)|dist\/.+\.(js|d\.ts)|docs\/[\w/-]+\.(md|svg)|native\/.+\.(cc|h|cu|cmake)|scripts\/(build-native|build-ts|libtorch)\.mjs|data\/README\.md|data\/(encoder|pairs)\/.+|prebuilds\/[a-z0-9]+-[a-z0-9]+\/([\w.-]+\.(node|so|dylib|dll)|libtorch-version))$/;
/** Scripts that npm would run where the package is installed; `prepare` it asks about, and runs for a folder. */
const INSTALL_SCRIPTS = ["preinstall", "install", "postinstall", "prepare"];

/**
 * @param {string[]} files paths in the package
 * @param {object} manifest its package.json
 * @param {string[]} platforms as "linux-x64", that must have a prebuild
 * @returns {string[]} what is wrong; empty where nothing is
 */
export function contentFaults(files, manifest, platforms) {
  const has = new Set(files);
  const needed = [
    ...NEEDED,
    ...platforms.flatMap((platform) =>
      ["libpeft_train.so", "libtorch-version"].map((name) => `prebuilds/${platform}/${name}`),
    ),
  ];
  const addons = platforms.filter(
    (platform) => !files.some((file) => file.startsWith(`prebuilds/${platform}/`) && file.endsWith(".node")),
  );
  return [
    ...needed.filter((file) => !has.has(file)).map((file) => `${file} is missing`),
    ...addons.map((platform) => `prebuilds/${platform}/ has no .node`),
    ...files.filter((file) => !ALLOWED.test(file)).map((file) => `${file} does not belong in the package`),
    ...INSTALL_SCRIPTS.filter((name) => manifest.scripts?.[name]).map((name) => `a script ${name} would run`),
    ...(manifest.gypfile === false ? [] : ["npm would run node-gyp because of binding.gyp"]),
  ];
}

/** Bytes of the unpacked folder as a tarball, data/ left out. */
export function compressedBytes(folder) {
  const { status, stdout, stderr } = spawnSync("tar", ["-cz", "--exclude=./data", "-C", folder, "."], {
    maxBuffer: 1e9,
  });
  if (status !== 0) throw new Error(`tar: ${stderr}`);
  return stdout.length;
}
