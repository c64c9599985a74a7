import { PeftTrainError } from "../../errors.js";
import { loadEngine } from "../../native/load.js";
import type { NativeEngine } from "../../native/types.js";
import { examineGpu } from "../../setup/gpu.js";
import { ensureLibtorch } from "../../setup/install.js";
import { SetupDisplay } from "../display/setup-display.js";

/** The engine, with libtorch fetched first where there is none: what makes the first command do all the set-up. */
export async function prepareEngine(device: string): Promise<NativeEngine> {
  await prepareLibtorch(device);
  return loadEngine();
}

/**
 * Fetches libtorch where there is none, and does not load it. CUDA's is gigabytes, so a GPU is looked for first.
 * @throws DEVICE_UNAVAILABLE
 */
export async function prepareLibtorch(device: string): Promise<void> {
  if (device.startsWith("cuda")) await requireGpu(device);
  using display = new SetupDisplay();
  await ensureLibtorch({
    device: device.startsWith("cuda") ? "cuda" : "cpu",
    onProgress: display.update,
    onNote: display.note,
  });
}

async function requireGpu(device: string): Promise<void> {
  const { devices, present, failure } = await examineGpu(process.env);
  if (devices.length > 0) return;
  const found = present ? "an NVIDIA GPU that cannot be used" : "no NVIDIA GPU";
  throw new PeftTrainError(
    "DEVICE_UNAVAILABLE",
    `--device=${device}: found ${found}${failure === undefined ? "" : ` (${failure})`}`,
    { hint: "npx peft-train doctor says what it takes; --device=cpu works without." },
  );
}
