import { styleText } from "node:util";
import { examine } from "../../doctor/examine.js";
import type { Finding, Status } from "../../doctor/finding.js";
import { counted } from "../../format.js";
import { VERSION } from "../../version.js";
import type { DoctorArguments } from "../commands/doctor.js";
import { bold, hasColors, table } from "../display/terminal.js";

const TITLES: Record<string, string> = {
  package: "Package",
  cpu: "Processor",
  threads: "Threads",
  memory: "Memory",
  cache: "Cache folder",
  hub_cache: "Hub's cache",
  output: "This folder",
  proxy: "Proxy",
  hub: "Hugging Face Hub",
  gpu: "GPU",
  tokenizer: "Tokenizer",
  addon: "Compiled addon",
  libtorch: "libtorch",
  load: "Engine",
};
const MARKS: Record<Status, [text: string, color: "green" | "yellow" | "red" | "gray"]> = {
  ok: ["ok", "green"],
  note: ["note", "yellow"],
  problem: ["problem", "red"],
  skipped: ["skipped", "gray"],
};
/** Columns of the first two cells with their borders, and of the last one's. */
const OTHER_COLUMNS = 33;
const NARROWEST = 40;

/** `peft-train doctor`: exit code 1 where there is a problem. */
export async function runDoctor(args: DoctorArguments): Promise<void> {
  const findings: Finding[] = [];
  const progress = new StatusLine(process.stderr);
  for await (const finding of examine({ onStart: progress.show })) findings.push(finding);
  progress.clear();
  const ok = !findings.some(({ status }) => status === "problem");
  process.stdout.write(
    args.json
      ? `${JSON.stringify({ event: "doctor", ok, version: VERSION, checks: findings })}\n`
      : `${drawn(findings)}\n${advice(findings)}`,
  );
  process.exitCode = ok ? 0 : 1;
}

function drawn(findings: readonly Finding[]): string {
  const width = process.stdout.isTTY ? Math.max(NARROWEST, process.stdout.columns - OTHER_COLUMNS) : null;
  return table(
    ["Checked", "", "Found"],
    findings.map(({ check, status, found }) => [
      titleOf(check),
      mark(status),
      width === null ? found : breakWords(found, width - 2),
    ]),
    { widths: [null, null, width] },
  );
}

function advice(findings: readonly Finding[]): string {
  const told = findings.filter(({ status, next }) => next !== undefined && status !== "ok");
  const lines = told.map(
    ({ check, status, next }) =>
      `${status === "problem" ? "To mend" : "To note"} ${titleOf(check)}:\n    ${next}`,
  );
  const problems = findings.filter(({ status }) => status === "problem").length;
  const sum = problems === 0 ? "Everything works." : `${counted(problems, "problem")}.`;
  return [...lines, bold(sum), ""].join("\n");
}

/** A path that is wider than its column would lose its end. */
function breakWords(text: string, width: number): string {
  return text.replaceAll(new RegExp(`\\S{${width}}(?=\\S)`, "g"), "$& ");
}

function titleOf(check: string): string {
  return TITLES[check] ?? check.replace(/^train\./, "Training on ");
}

function mark(status: Status): string {
  const [text, color] = MARKS[status];
  return hasColors(process.stdout) ? styleText(color, text) : text;
}

/** One line on a terminal that says what is going on; nothing elsewhere. */
class StatusLine {
  constructor(private readonly stream: NodeJS.WriteStream) {}

  readonly show = (what: string): void => {
    if (this.stream.isTTY) this.stream.write(`\r\x1b[K${what} ...`);
  };

  clear(): void {
    if (this.stream.isTTY) this.stream.write("\r\x1b[K");
  }
}
