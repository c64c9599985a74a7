import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { Encoder } from "../../dist/index.js";
import { cases, interopTexts } from "./cases.mjs";
import { writeGradients } from "./gradients.mjs";
import { quantInterchange } from "./quant.mjs";

const ZERO_SHOT_TEXTS = 200;
const TRAINED_PAIRS = 128;

/** Runs a program to its end and returns its output; what it printed is shown only when it fails. */
function run(program, args, env) {
  const result = spawnSync(program, args, {
    encoding: "utf8",
    env: { ...process.env, ...env },
    maxBuffer: 1 << 28,
  });
  if (result.error) throw result.error;
  if (result.status !== 0) {
    process.stderr.write(result.stdout + result.stderr);
    throw new Error(
      `${path.basename(program)} ${args.join(" ")} ended with ${result.status ?? result.signal}`,
    );
  }
  return result.stdout + result.stderr;
}

/**
 * Does everything that there is to do on this side, has Python do its half, and lets it compare.
 * @returns {Promise<{ peft: string, transformers: string, rows: object[] }[]>} One report a release of PEFT.
 */
export async function interchange(root, work, python, say) {
  const script = (name, args, env = python.env) => run(python.program, [path.join(root, name), ...args], env);
  const peftTrain = (command, flags, ...more) => {
    const given = Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
    const bin = path.join(root, "bin/peft-train.js");
    return run(process.execPath, [bin, ...command, ...given, ...more], { NO_COLOR: "1" });
  };
  const minilm = script("test/interop/minilm.py", []).trim().split("\n").at(-1);
  const models = { minilm, demo: path.join(root, "data/encoder") };
  const pairs = path.join(root, "data/pairs/train.csv");
  const file = (...names) => path.join(work, ...names);
  const plan = {
    ...cases(models, work),
    pairs,
    texts: file("texts.jsonl"),
    zeroShot: minilm,
    zeroShotTexts: ZERO_SHOT_TEXTS,
  };

  const texts = interopTexts(path.join(root, "data/pairs/test.csv"), ZERO_SHOT_TEXTS);
  const lines = texts.map((text) => `${JSON.stringify({ text })}\n`);
  writeFileSync(plan.texts, lines.join(""));
  writeFileSync(file("zero-shot.jsonl"), lines.slice(0, ZERO_SHOT_TEXTS).join(""));
  const rows = readFileSync(pairs, "utf8").split("\n");
  writeFileSync(file("pairs.csv"), rows.slice(0, TRAINED_PAIRS + 1).join("\n"));

  for (const entry of plan.ours) {
    say(`training ${entry.name} here`);
    const training = {
      model_name_or_path: entry.model,
      dataset_name: file("pairs.csv"),
      eval_dataset_name: file("pairs.csv"),
      output_dir: entry.adapter,
      max_length: 70,
      per_device_train_batch_size: 16,
      learning_rate: 5e-3,
      max_train_steps: TRAINED_PAIRS / 16,
      seed: 1,
      ...entry.flags,
    };
    entry.printed = peftTrain([], training, "--use_peft");
    const encoding = { model_name_or_path: entry.model, adapter: entry.adapter, output: entry.vectors };
    peftTrain(["encode"], { ...encoding, input: plan.texts, column: "text" });
  }

  say("embedding without an adapter here");
  const zeroShot = { model_name_or_path: minilm, prefix: "", max_length: 256, column: "text" };
  peftTrain(["encode"], {
    ...zeroShot,
    input: file("zero-shot.jsonl"),
    output: file("zero-shot-ours.npy"),
  });

  say("training adapters in Python");
  writeFileSync(file("plan.json"), JSON.stringify(plan, null, 2));
  for (const entry of plan.theirs) mkdirSync(file("theirs", entry.name), { recursive: true });
  script("test/interop/make.py", [file("plan.json")]);

  say("reading Python's adapters here");
  for (const entry of plan.theirs) {
    for (const layout of ["plain", "wrapped"]) {
      const encoder = await Encoder.load(entry.model, { adapter: file("theirs", entry.name, layout) });
      const vectors = await encoder.encode(texts, { prefix: "query: ", maxLength: 70 });
      await encoder.close();
      const bytes = vectors.map((row) => Buffer.from(row.buffer, row.byteOffset, row.byteLength));
      writeFileSync(file("theirs", entry.name, `${layout}.f32`), Buffer.concat(bytes));
    }
  }

  say("computing the gradients of a real batch here");
  const graded = plan.theirs.find(({ name }) => name === plan.gradients);
  await writeGradients(graded.model, file("theirs", graded.name, "plain"), work);

  say("writing the golden files once more");
  script("test/fixtures/golden/make_golden.py", [file("golden"), "--skip-dropout"]);

  const quantised = await quantInterchange({
    work,
    model: minilm,
    texts,
    pairs: file("pairs.csv"),
    peftTrain,
    script,
    say,
  });

  say("comparing");
  script("test/interop/compare.py", [file("plan.json"), file("report.json")]);
  script(
    "test/interop/compare.py",
    [file("plan.json"), file("report-oldest.json"), "--adapters-only"],
    python.oldest,
  );
  return [file("report.json"), file("report-oldest.json"), quantised].map((name) =>
    JSON.parse(readFileSync(name, "utf8")),
  );
}
