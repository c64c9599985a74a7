// What `npm ci` runs in a checkout: TypeScript to dist/, libtorch into the cache, the addon into build/.
import { spawnSync } from "node:child_process";

for (const script of ["build:ts", "build:native"]) {
  const { status, error } = spawnSync("npm", ["run", "--silent", script], { stdio: "inherit" });
  if (error !== undefined) throw error;
  if (status !== 0) {
    console.error(
      `peft-train is not ready: npm run ${script} failed (see above). Mend it and run: npm run build`,
    );
    process.exit(1);
  }
}
