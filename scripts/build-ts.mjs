// npm run build:ts. An installed package has dist/ and no lib/: there is nothing to compile.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
if (!existsSync(new URL("../lib", import.meta.url))) {
  console.log("dist/ came with the package.");
} else {
  const { status, error } = spawnSync("tsc", { cwd: root, stdio: "inherit" });
  if (error !== undefined) console.error(`tsc: ${error.message}. Run: npm ci`);
  process.exit(status ?? 1);
}
