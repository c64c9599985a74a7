import { PeftTrainError } from "../../errors.js";
import { jsonLine } from "../../train/json-line.js";
import { inTenant, type TenantEvent, type TenantOutcome, trainMany } from "../../train/many/train-many.js";
import { TenantsReport } from "../display/tenants-report.js";
import { type FlagValues, textFlag } from "../flags.js";
import { exitCode, printError } from "../print-error.js";
import { refuseUnavailable } from "../unavailable.js";
import { prepareEngine } from "./engine.js";
import { Interrupt } from "./interrupt.js";
import { resumeCommand } from "./resume-command.js";
import { readTenants } from "./tenants-file.js";
import { trainFlags } from "./train.js";

const PROGRESS: ReadonlySet<TenantEvent["event"]> = new Set([
  "reading",
  "downloading",
  "preparing",
  "evaluating",
]);

/** `peft-train train-many`. */
export async function runTrainMany(args: FlagValues): Promise<void> {
  refuseUnavailable(args, args.typed as string[]);
  const file = textFlag(args, "config");
  if (file === undefined) {
    throw new PeftTrainError("USAGE", "--config is required: the file of the tenants", {
      hint: "For example: npx peft-train train-many --config tenants.yaml --output_dir out",
    });
  }
  const flags = trainFlags(args);
  const given = Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined));
  const tenants = readTenants(file, given);
  const report = new TenantsReport(args.quiet === true, args.json === true);
  const device = Object.values(tenants)[0]?.device ?? "cpu";
  await using run = trainMany(tenants, { engine: () => prepareEngine(device) });
  using interrupt = new Interrupt(() => {
    report.note("stopping every tenant after its step in hand; Ctrl-C again ends at once");
    run.stop();
  });
  try {
    for await (const event of run) {
      if (args.json !== true) report.event(event);
      else if (!PROGRESS.has(event.event)) process.stdout.write(`${jsonLine(event)}\n`);
    }
  } catch (error) {
    if (interrupt.exitCode !== undefined && error instanceof PeftTrainError && error.code === "ABORTED") {
      process.exitCode = interrupt.exitCode;
    }
    throw error;
  }
  const outcomes = await run.outcomes;
  if (args.json !== true) report.finished(outcomes);
  end(outcomes, args, interrupt.exitCode);
}

/** Says what did not end well, and sets the exit code. */
function end(outcomes: readonly TenantOutcome[], args: FlagValues, interrupted: number | undefined): void {
  const stopped = outcomes.some(({ result }) => result?.stopped === true);
  const kept = outcomes.some(({ result }) => result?.stopped === true && result.checkpoint !== null);
  if (stopped) process.exitCode = interrupted ?? 130;
  if (kept) process.stderr.write(`Go on with: ${resumeCommand(args.typed as string[])}\n`);
  for (const { tenant, error } of outcomes) {
    if (error === undefined) continue;
    printError(inTenant(tenant, error), args.json === true);
    process.exitCode = process.exitCode || exitCode(error);
  }
}
