import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UsageError } from "./arguments.mjs";

/**
 * The frame of every benchmark. A mistake is told in one line: status 2 for the command line, 1 for the rest (with
 * PEFT_TRAIN_DEBUG also where it comes from). Ctrl-C and SIGTERM end it at once, with 130 and 143.
 * @param {string} name how it is called
 * @param {(argv: string[]) => any} read makes options of the command line; throws UsageError
 * @param {(options: any, folder: string) => Promise<void>} main gets a folder that is gone when the program ends, however it ends
 */
export async function benchmark(name, read, main) {
  const folder = mkdtempSync(join(tmpdir(), "peft-train-bench-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ])
    process.once(signal, () => process.exit(code));
  try {
    await main(read(process.argv.slice(2)), folder);
  } catch (error) {
    console.error(`${name}: ${error.message}`);
    if (process.env.PEFT_TRAIN_DEBUG) console.error(error.stack);
    process.exit(error instanceof UsageError ? 2 : 1); // a program that was started would be waited for
  }
}
