// npm run prebuildify: compiles from nothing and lays the addon, the engine and the libtorch version it is for into
// prebuilds/, from where the tarball takes them.
import { spawnSync } from "node:child_process";
import { copyFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const prebuildify = createRequire(import.meta.url).resolve("prebuildify/bin.js");

// It goes through node-gyp and binding.gyp to scripts/build-native.mjs.
const { status, error } = spawnSync(process.execPath, [prebuildify, "--napi"], {
  cwd: root,
  stdio: "inherit",
});
if (error !== undefined) throw error;
if (status !== 0) process.exit(1);
// prebuildify takes the .node and the .so files alone.
const platform = `${process.platform}-${process.arch}`;
copyFileSync(
  join(root, "build/Release/libtorch-version"),
  join(root, "prebuilds", platform, "libtorch-version"),
);
console.log(`prebuilds/${platform} is ready.`);
