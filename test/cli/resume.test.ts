import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { findCheckpoint } from "../../lib/train/checkpoint/find-checkpoint.js";
import { outcome, runCli, startCli } from "../support/cli.js";
import { skips } from "../support/skips.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { mulberry32 } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const BIN = fileURLToPath(new URL("../../bin/peft-train.js", import.meta.url));
const DATA = fileURLToPath(new URL("../../data", import.meta.url));
const KILLS = Number(process.env.PEFT_TRAIN_KILLS ?? 50);
/** Fifty runs take a minute on a quiet machine, and many on a busy one. */
const PATIENCE_MS = 1_800_000;
const STEPS = 60;

const args = (output: string, ...more: string[]) => [
  `--model_name_or_path=${DATA}/encoder`,
  `--dataset_name=${DATA}/pairs/train.csv`,
  "--eval_fraction=0.02",
  "--per_device_train_batch_size=16",
  "--max_length=24",
  "--num_threads=1",
  "--logging_steps=5",
  `--max_train_steps=${STEPS}`,
  `--output_dir=${output}`,
  "--json",
  ...more,
];

const weights = (name: string) => readFileSync(temporary.path(name, "adapter_model.safetensors"));

const logLines = (name: string) =>
  readFileSync(temporary.path(name, "train_log.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

/** Lines that say what was trained and saved, without times and sizes. */
const story = (name: string) =>
  logLines(name)
    .filter(({ event }) => ["log", "evaluated", "saved"].includes(event))
    .map(({ event, step, epoch, loss, metrics }) => ({ event, step, epoch, loss, metrics }));

beforeAll(async () => {
  const whole = await runCli(args("whole", "--checkpointing_steps=1", "--save_total_limit=2"), {
    cwd: temporary.path(),
  });
  expect(whole.code, whole.stderr).toBe(0);
}, PATIENCE_MS);

describe("a run that is killed", () => {
  it(`ends, resumed, in the same bytes: ${KILLS} kills at random moments`, {
    timeout: PATIENCE_MS,
  }, async () => {
    const random = mulberry32(Number(process.env.PEFT_TRAIN_KILL_SEED ?? 11));
    // A checkpoint every step: most moments are within a save.
    const command = args(
      "out",
      "--checkpointing_steps=1",
      "--save_total_limit=2",
      "--resume_from_checkpoint=latest",
    );
    const from = new Set<number>();
    let [kills, finished] = [0, 0];
    while (kills < KILLS) {
      const child = startCli(command, { cwd: temporary.path() });
      const ended = outcome(child);
      // From before the first step on; a step with its save takes some 30 ms.
      const [after, wait] = [random() < 0.2 ? '"started"' : '"step"', 400 * random()];
      await new Promise<void>((resolve) => {
        child.stdout.on("data", (text: string) => {
          if (text.includes(after)) resolve();
        });
        child.on("close", () => resolve());
      });
      await new Promise((resolve) => setTimeout(resolve, wait));
      child.kill("SIGKILL");
      const { signal, code, stdout, stderr } = await ended;
      const resumed = /"event":"resumed".*?"step":(\d+)/.exec(stdout);
      if (resumed !== null) from.add(Number(resumed[1]));
      expect(stderr).not.toContain("skipped");
      if (signal === "SIGKILL") kills++;
      else {
        expect(code, stderr).toBe(0);
        finished++;
        expect(weights("out").equals(weights("whole"))).toBe(true);
        expect(story("out")).toEqual(story("whole"));
        rmSync(temporary.path("out"), { recursive: true });
      }
      if (!existsSync(temporary.path("out"))) continue;
      const { checkpoint, warnings } = await findCheckpoint("latest", temporary.path("out"), true);
      if (checkpoint === undefined) expect(warnings).toHaveLength(1);
    }
    const last = await runCli(command, { cwd: temporary.path() });
    expect(last.code, last.stderr).toBe(0);
    expect(weights("out").equals(weights("whole"))).toBe(true);
    expect(story("out")).toEqual(story("whole"));
    expect(from.size).toBeGreaterThan(1);
    expect(readdirSync(temporary.path("out")).sort()).toEqual(readdirSync(temporary.path("whole")).sort());
    expect(readdirSync(temporary.path()).filter((name) => name.startsWith("."))).toEqual([]);
    if (process.env.PEFT_TRAIN_KILLS !== undefined) {
      console.log(
        `${kills} kills, ${finished + 1} runs to the end, resumed from ${from.size} different steps`,
      );
    }
  });
});

describe("a run that is asked to stop", () => {
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    it(`by ${signal} saves a checkpoint, prints the command that goes on, and ends with ${code}`, async () => {
      const name = `stopped-${code}`;
      const child = startCli(args(name), { cwd: temporary.path() });
      const ended = outcome(child);
      child.stdout.once("data", () => {});
      await new Promise<void>((resolve) => {
        child.stdout.on("data", (text: string) => {
          if (text.includes('"step"')) resolve();
        });
      });
      child.kill(signal);
      const stopped = await ended;
      expect(stopped.code, stopped.stderr).toBe(code);
      const line = /^Go on with: npx peft-train (.*)$/m.exec(stopped.stderr)?.[1] as string;
      expect(line).toContain("--resume_from_checkpoint=latest");
      const resumed = await runCli(line.split(" "), { cwd: temporary.path() });
      expect(resumed.code, resumed.stderr).toBe(0);
      expect(resumed.stdout).toContain('"event":"resumed"');
      expect(weights(name).equals(weights("whole"))).toBe(true);
    });
  }
});

it("a run that is asked twice to stop ends at once, and its checkpoints stay whole", async () => {
  const child = startCli(args("twice", "--checkpointing_steps=1"), { cwd: temporary.path() });
  const ended = outcome(child);
  child.stdout.on("data", (text: string) => {
    if (text.includes('"saved"') && !child.killed) child.kill("SIGTERM");
  });
  child.stderr.on("data", (text: string) => {
    if (text.includes("stopping")) child.kill("SIGINT");
  });
  const { code, stderr } = await ended;
  // The first may have been done with before the second came.
  expect([130, 143], stderr).toContain(code);
  const { checkpoint, warnings } = await findCheckpoint("latest", temporary.path("twice"), false);
  expect(warnings).toEqual([]);
  expect(checkpoint?.manifest.step).toBeGreaterThan(0);
  expect(readdirSync(temporary.path("twice")).filter((name) => name.startsWith("."))).toEqual([]);
});

/** Whether this user may mount a file system in a namespace of its own. */
const mayMount = spawnSync("unshare", ["-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).status === 0;

describe.skipIf(skips(!mayMount, "this user may not mount a file system, so no disk can be full"))(
  "a disk that is full",
  () => {
    it("fails the save, keeps the last checkpoint, says so, and the run goes on once there is room", async () => {
      mkdirSync(temporary.path("disk"));
      const script = `
      mount -t tmpfs -o size=1200k tmpfs disk || exit 9
      "$@"; echo "ended with $?" >&2
      ls -A disk disk/out >&2
      mount -o remount,size=16m disk
      "$@" --resume_from_checkpoint=latest || exit 8
      cp -r disk/out from-disk`;
      const command = [process.execPath, BIN, ...args("disk/out", "--checkpointing_steps=10")];
      const child = spawn("unshare", ["-Urm", "sh", "-c", script, "sh", ...command], {
        cwd: temporary.path(),
      });
      const { code, stdout, stderr } = await outcome(child);
      expect(code, stderr).toBe(0);
      expect(stderr).toMatch(/^error: step 30 of 60: .*No space left.*step_20 of step 20 is whole\)$/im);
      expect(stderr).toMatch(
        /^hint: Make room, then go on with the same command and --resume_from_checkpoint=latest/m,
      );
      expect(stderr).toMatch(/ended with 1\ndisk:\nout\n\ndisk\/out:\nstep_10\nstep_20\ntrain_log\.jsonl\n/);
      expect(stdout).toMatch(/"event":"resumed".*"step":20/);
      expect(weights("from-disk").equals(weights("whole"))).toBe(true);
    });

    /** Runs the command on a disk of so many kilobytes; what it leaves is listed on stderr. */
    const onDisk = (kilobytes: number, ...more: string[]) => {
      const folder = `disk-${kilobytes}`;
      mkdirSync(temporary.path(folder));
      const script = `
      mount -t tmpfs -o size=${kilobytes}k tmpfs ${folder} || exit 9
      "$@"; echo "ended with $?" >&2
      ls -A ${folder} ${folder}/out >&2`;
      const command = [process.execPath, BIN, ...args(`${folder}/out`, "--max_train_steps=4", ...more)];
      return outcome(
        spawn("unshare", ["-Urm", "sh", "-c", script, "sh", ...command], { cwd: temporary.path() }),
      );
    };

    it("at the end of a run without checkpoints leaves no half of an adapter, and says that nothing was saved", async () => {
      const { stderr } = await onDisk(204);
      expect(stderr).toMatch(
        /^error: step 4 of 4: .*[Nn]o space left.* \(there is no checkpoint; nothing was saved\)\nhint: Make room or/m,
      );
      expect(stderr).toMatch(/ended with 1\nls: cannot access .*\ndisk-204:\n$/);
    });

    it("at the report leaves the adapter, and says how to make the report again", async () => {
      const { stderr } = await onDisk(280);
      expect(stderr).toMatch(
        /^hint: All else is there. Make room, then: npx peft-train report .*disk-280\/out$/m,
      );
      expect(stderr).toMatch(
        /ended with 1\ndisk-280:\nout\n\ndisk-280\/out:\nadapter_config\.json\nadapter_model/,
      );
      expect(stderr).not.toContain("report.html\n");
    });
  },
);

it("a limit on the size of files is an error like a full disk, and no signal that kills", async () => {
  const command = [process.execPath, BIN, ...args("limited", "--max_train_steps=2")];
  const child = spawn("sh", ["-c", 'ulimit -f 60; "$@"', "sh", ...command], { cwd: temporary.path() });
  const { code, stderr } = await outcome(child);
  expect([code, existsSync(temporary.path("limited"))]).toEqual([1, false]);
  expect(stderr).toMatch(
    /^error: step 2 of 2: .*too large.* \(there is no checkpoint; nothing was saved\)$/m,
  );
});
