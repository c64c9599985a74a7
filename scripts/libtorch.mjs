// The libtorch to compile against: found, or fetched into the cache. Uses the compiled TypeScript.
import { existsSync } from "node:fs";

export async function libtorchForBuild() {
  const dist = new URL("../dist/", import.meta.url);
  if (!existsSync(new URL("setup/install.js", dist))) {
    console.error("dist/ is not there; run: npm run build");
    process.exit(1);
  }
  const { ensureLibtorch } = await import(new URL("setup/install.js", dist).href);
  const { SetupDisplay } = await import(new URL("cli/display/setup-display.js", dist).href);
  const display = new SetupDisplay();
  try {
    return await ensureLibtorch({ forBuild: true, onProgress: display.update });
  } catch (error) {
    if (error?.name !== "PeftTrainError") throw error;
    display[Symbol.dispose]();
    console.error(`${error.code}: ${error.message}`);
    if (error.hint) console.error(error.hint);
    process.exit(error.code === "ABORTED" ? 130 : 1);
  } finally {
    display[Symbol.dispose]();
  }
}
