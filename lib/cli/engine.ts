import { loadEngine } from "../native/load.js";
import type { NativeEngine } from "../native/types.js";
import { ensureLibtorch } from "../setup/install.js";
import { SetupDisplay } from "./setup-display.js";

/** The engine, with libtorch fetched first where there is none: what makes the first command do all the set-up. */
export async function prepareEngine(device: string): Promise<NativeEngine> {
  await prepareLibtorch(device);
  return loadEngine();
}

/** Fetches libtorch where there is none, and does not load it. */
export async function prepareLibtorch(device: string): Promise<void> {
  using display = new SetupDisplay();
  await ensureLibtorch({
    device: device.startsWith("cuda") ? "cuda" : "cpu",
    onProgress: display.update,
    onNote: display.note,
  });
}
