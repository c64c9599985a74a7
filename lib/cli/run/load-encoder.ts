import { Encoder } from "../../encoder.js";
import type { StorageRequest } from "../../model/storage.js";
import type { Pooling } from "../../native/types.js";
import { DownloadProgress } from "../display/download-progress.js";
import { type FlagValues, textFlag } from "../flags.js";
import { prepareEngine } from "./engine.js";

/**
 * The encoder that a command's flags ask for, libtorch fetched first where there is none; tells what its adapter warns of.
 *
 * @param flags Of `args`, as `readFlags` gives them; `request` is what they say of the weights.
 */
export async function loadEncoder(
  args: FlagValues,
  flags: { model_name_or_path?: unknown; device?: unknown; num_threads?: unknown; pooling?: unknown },
  request: StorageRequest,
  signal?: AbortSignal,
): Promise<Encoder> {
  const device = (flags.device as string | undefined) ?? "cpu";
  using downloads = new DownloadProgress(args.json === true || args.quiet === true);
  const encoder = await Encoder.loadAs(flags.model_name_or_path as string, request, {
    adapter: textFlag(args, "adapter"),
    device,
    threads: flags.num_threads as number | undefined,
    pooling: flags.pooling as Pooling | undefined,
    onDownload: downloads.onDownload,
    onNote: downloads.onNote,
    signal,
    engine: () => prepareEngine(device),
  });
  for (const warning of encoder.adapter?.warnings ?? []) process.stderr.write(`warning: ${warning}\n`);
  return encoder;
}
