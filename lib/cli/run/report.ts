import path from "node:path";
import { REPORT_FILE } from "../../adapter/folder.js";
import { AtomicFile } from "../../data/atomic-file.js";
import { PeftTrainError } from "../../errors.js";
import { renderReport } from "../../report/page.js";
import { readRunLog } from "../../report/run-log.js";
import { jsonLine } from "../../train/json-line.js";
import { shortPath, size } from "../display/terminal.js";
import { type FlagValues, textFlag } from "../flags.js";

/** `peft-train report` */
export async function runReport(args: FlagValues): Promise<void> {
  const folder = textFlag(args, "folder");
  if (folder === undefined) {
    throw new PeftTrainError("USAGE", "the folder of a run is required", {
      hint: "For example: npx peft-train report out",
    });
  }
  const file = textFlag(args, "out") ?? path.join(folder, REPORT_FILE);
  const html = renderReport(await readRunLog(folder));
  await using out = await AtomicFile.create(file);
  await out.write(html);
  await out.commit();
  const bytes = Buffer.byteLength(html);
  if (args.json === true) process.stdout.write(`${jsonLine({ folder, report: file, bytes })}\n`);
  else if (args.quiet !== true) process.stdout.write(`Wrote ${shortPath(file)} (${size(bytes)})\n`);
}
