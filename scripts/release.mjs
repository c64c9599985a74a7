// npm run release: makes the tarball and proves it.
//
//   npm run release [-- --prebuilt] [--any-glibc] [--out FOLDER]
//
//   1. compiles TypeScript from nothing, and the addon into prebuilds/ (--prebuilt: takes what lies in prebuilds/, else build/Release);
//   2. checks that no compiled file asks for more than glibc 2.28 has (--any-glibc: only says what they ask for);
//   3. packs, and checks content and size;
//   4. installs the tarball into an empty folder with --ignore-scripts, and runs the demo and doctor there.
//
// Ends with the tarball in FOLDER (default: release/), or with 1.
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { compressedBytes, contentFaults, LARGEST_BYTES } from "./check-package.mjs";
import { stage } from "./stage.mjs";
import { aboveFloor, symbolVersions } from "./symbol-versions.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const { values: options } = parseArgs({
  options: {
    prebuilt: { type: "boolean", default: false },
    "any-glibc": { type: "boolean", default: false },
    out: { type: "string", default: "release" },
  },
});
const work = mkdtempSync(join(tmpdir(), "peft-train-release-"));
process.once("exit", () => rmSync(work, { recursive: true, force: true }));

build();
const staged = join(work, "package");
const prebuilds = join(root, "prebuilds");
stage(root, staged, existsSync(prebuilds) ? prebuilds : undefined);
const platforms = readdirSync(join(staged, "prebuilds"));
checkSymbols();
const tarball = pack();
checkContent();
tryOut();
mkdirSync(resolve(options.out), { recursive: true });
const result = join(resolve(options.out), tarball);
renameOrCopy(join(work, tarball), result);
console.log(`release: ${result} is ready for ${platforms.join(", ")}`);

function build() {
  rmSync(join(root, "dist"), { recursive: true, force: true });
  run("npm", ["run", "--silent", "build:ts"], root);
  if (!options.prebuilt) run(process.execPath, [join(root, "scripts", "prebuild.mjs")], root);
}

function checkSymbols() {
  for (const platform of platforms.filter((name) => name.startsWith("linux-"))) {
    const folder = join(staged, "prebuilds", platform);
    for (const name of readdirSync(folder).filter((file) => /\.(node|so)$/.test(file))) {
      const versions = symbolVersions(join(folder, name));
      const told = Object.entries(versions).map(([library, version]) => `${library}_${version}`);
      console.log(`release: ${platform}/${name} asks for ${told.join(", ")}`);
      const above = aboveFloor(versions);
      if (above.length === 0) continue;
      const message = `${platform}/${name} does not load on every system with glibc 2.28: ${above.join(", ")}`;
      if (!options["any-glibc"])
        fail(`${message}. Build it in a manylinux_2_28 container, or pass --any-glibc.`);
      console.log(`release: ${message}`);
    }
  }
}

function pack() {
  const json = run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", work], staged, "pipe");
  return JSON.parse(json)[0].filename;
}

function checkContent() {
  const unpacked = join(work, "unpacked");
  mkdirSync(unpacked);
  run("tar", ["-xzf", join(work, tarball), "-C", unpacked], work);
  const folder = join(unpacked, "package");
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
  const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const faults = contentFaults(files, manifest, platforms);
  const bytes = compressedBytes(folder);
  if (bytes >= LARGEST_BYTES)
    faults.push(`it weighs ${bytes} bytes without data/; ${LARGEST_BYTES} is the limit`);
  if (faults.length > 0) fail(`the tarball is not right:\n  ${faults.join("\n  ")}`);
  console.log(`release: ${files.length} files, ${(bytes / 1e6).toFixed(2)} MB without data/`);
}

function tryOut() {
  const folder = join(work, "project");
  mkdirSync(folder);
  writeFileSync(join(folder, "package.json"), '{ "private": true }\n');
  const quiet = ["--no-audit", "--no-fund", "--prefer-offline"];
  run("npm", ["install", ...quiet, "--ignore-scripts", join(work, tarball)], folder);
  // So that node-gyp-build takes the prebuild.
  if (existsSync(join(folder, "node_modules", "peft-train", "build"))) fail("the package brings a build/");
  run("npx", ["peft-train", "demo", "--quiet", "--output_dir=demo"], folder);
  if (!existsSync(join(folder, "demo", "adapter_model.safetensors"))) fail("the demo left no adapter");
  run("npx", ["peft-train", "doctor"], folder);
}

function run(command, args, cwd, stdout = "inherit") {
  const result = spawnSync(command, args, { cwd, stdio: ["ignore", stdout, "inherit"], encoding: "utf8" });
  if (result.status === 0) return result.stdout;
  return fail(
    `${command} ${args.join(" ")} ended with ${result.error?.message ?? result.signal ?? result.status}`,
  );
}

function renameOrCopy(from, to) {
  rmSync(to, { force: true });
  try {
    renameSync(from, to);
  } catch {
    run("cp", [from, to], work); // another file system
  }
}

function fail(message) {
  console.error(`release: ${message}`);
  process.exit(1);
}
