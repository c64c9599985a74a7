import { loadEngine } from "../native/load.js";
import type { NativeEngine } from "../native/types.js";
import { ensureLibtorch } from "../setup/install.js";
import { SetupDisplay } from "./setup-display.js";

/** The engine, with libtorch fetched first where there is none: what makes the first command do all the set-up. */
export async function prepareEngine(device: string): Promise<NativeEngine> {
  using display = new SetupDisplay();
  await ensureLibtorch({
    device: device.startsWith("cuda") ? "cuda" : "cpu",
    onProgress: display.update,
  });
  return loadEngine();
}
