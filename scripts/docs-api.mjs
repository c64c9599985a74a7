// npm run docs:api: the reference of the library's public names, as HTML in build/api. Fails where one of them, or a property, is not documented.
// TypeDoc and the TypeScript that it needs are installed in scripts/api-docs when they are first wanted.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = fileURLToPath(new URL("api-docs/", import.meta.url));
const run = (command, args, cwd) => {
  const { status, error } = spawnSync(command, args, { cwd, stdio: "inherit" });
  if (error !== undefined || status !== 0) process.exit(status || 1);
};

if (!existsSync(`${folder}node_modules/typedoc`)) run("npm", ["ci", "--no-audit", "--no-fund"], folder);
run(process.execPath, [`${folder}node_modules/typedoc/bin/typedoc`, "--options", "typedoc.json"], root);
