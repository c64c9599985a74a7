import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, it } from "vitest";
import { Encoder } from "../../lib/encoder.js";
import { outcome, runCli, startCli } from "../support/cli.js";
import { readNpy } from "../support/npy.js";
import { writePairs } from "../support/pairs-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

// Everything here runs the real command on the real engine, with a model of two small layers.
const temporary = temporaryFolder();
const runHere = (args: string[]) => runCli(args, { cwd: temporary.path() });
const TRAIN = [
  "--model_name_or_path=model",
  "--dataset_name=train.csv",
  "--eval_dataset_name=test.csv",
  "--max_length=40",
  "--per_device_train_batch_size=16",
  "--learning_rate=5e-3",
  "--num_train_epochs=2",
  "--logging_steps=5",
];

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("train.csv"), 160);
  writePairs(temporary.path("test.csv"), 60, 2);
});

const range = (count: number) => Array.from({ length: count }, (_, i) => i);
const jsonLines = (text: string) =>
  text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

describe("train, eval and encode", () => {
  let text: Awaited<ReturnType<typeof runCli>>;

  beforeAll(async () => {
    text = await runHere([...TRAIN, "--output_dir=out", "--checkpointing_steps", "epoch"]);
    expect(text.code, text.stderr).toBe(0);
  });

  it("print PEFT's line, the AUC before and after each epoch, what was written and what to try next", () => {
    // 2 layers x 3 matrices x 8 x (32 + 32); 26,880 in the base: counted by hand from the shapes.
    const base =
      205 * 32 +
      64 * 32 +
      2 * 32 +
      64 +
      2 * (4 * (32 * 32 + 32) + 2 * 64 + 64 * 32 + 64 + 32 * 64 + 32) +
      32 * 32 +
      32;
    const all = base + 3072;
    const line = `trainable params: 3,072 || all params: ${all.toLocaleString("en-US")} || trainable%: ${((100 * 3072) / all).toFixed(4)}`;
    const lines = text.stdout.split("\n");
    expect(lines).toContain(line);
    expect(text.stdout).toMatch(
      /ROC AUC before training: 0\.\d{4}\n.*ROC AUC after epoch 1\/2: 0\.\d{4} \([+-]0\.\d{4}\), cosine to the base model 0\.\d{4}\n/s,
    );
    for (const name of readdirSync(temporary.path("out"))) expect(text.stdout).toContain(name);
    expect(text.stdout).toMatch(/npx peft-train eval --model_name_or_path=\S+ --adapter=out/);
    expect(text.stderr).toMatch(/^step 5\/20 \| loss 0\.\d{4} \| lr .* \| .* pairs\/s \| .* left$/m);
  });

  it("show nothing of the work in hand where an earlier run is replaced", async () => {
    const again = ["--output_dir=again", "--max_train_steps=1", "--checkpointing_steps", "epoch"];
    await runHere([...TRAIN, ...again]);
    const { code, stdout } = await runHere([...TRAIN, ...again, "--overwrite_output_dir"]);
    expect(code).toBe(0);
    const shown = [...stdout.matchAll(/^│ (\S+) +│/gm)].map(([, name = ""]) => name.replace("/", ""));
    expect(shown.slice(shown.indexOf("adapter_config.json")).sort()).toEqual(
      readdirSync(temporary.path("again")).sort(),
    );
    expect(stdout).not.toContain("partial");
  });

  it("learn something", () => {
    const log = jsonLines(readFileSync(temporary.path("out", "train_log.jsonl"), "utf8"));
    const losses = log.filter(({ event }) => event === "evaluated").map(({ metrics }) => metrics.loss);
    expect(losses).toHaveLength(3);
    expect(losses[2]).toBeLessThan(losses[0] - 0.02);
  });

  it("measure the saved adapter as training measured it, and the base as before training", async () => {
    const log = jsonLines(readFileSync(temporary.path("out", "train_log.jsonl"), "utf8"));
    const [before, , after] = log.filter(({ event }) => event === "evaluated");
    const common = ["eval", "--model_name_or_path=model", "--dataset_name=test.csv", "--json"];
    const withAdapter = await runHere([...common, "--adapter", "out"]);
    const [found, ...more] = jsonLines(withAdapter.stdout);
    expect(more).toEqual([]);
    expect(found).toMatchObject({ pairs: 60, model: "model", adapter: "out", dataset: "test.csv" });
    expect(found.roc_auc).toBeCloseTo(after.metrics.roc_auc, 6);
    expect(found.loss).toBeCloseTo(after.metrics.loss, 6);
    const [base] = jsonLines((await runHere([...common, "--max_length=40"])).stdout);
    expect(base.roc_auc).toBeCloseTo(before.metrics.roc_auc, 6);
    const [checkpoint] = jsonLines((await runHere([...common, "--adapter=out/epoch_1"])).stdout);
    expect(checkpoint.roc_auc).toBe(found.roc_auc);
  });

  it("write one float32 row a text, in input order, as the library gives them", async () => {
    const texts = ["c a b", "", "a", "z y x w v u t s", "a b c"];
    writeFileSync(temporary.path("texts.txt"), `${texts.join("\n")}\n`);
    const common = ["encode", "--model_name_or_path=model", "--adapter=out", "--input=texts.txt"];
    const npy = await runHere([...common, "--output=vectors.npy"]);
    expect(npy.code, npy.stderr).toBe(0);
    const { shape, rows } = readNpy(temporary.path("vectors.npy"));
    expect(shape).toEqual([5, 32]);
    await using encoder = await Encoder.load(temporary.path("model"), { adapter: temporary.path("out") });
    expect(encoder.defaults).toEqual({ prefix: "query: ", maxLength: 40 });
    const expected = await encoder.encode(texts);
    for (const [i, row] of rows.entries()) {
      for (const [j, value] of row.entries()) expect(value).toBeCloseTo(expected[i]?.[j] as number, 6);
      expect(Math.hypot(...row)).toBeCloseTo(1, 5);
    }
    const jsonl = await runHere([
      ...common,
      "--output=vectors.jsonl",
      "--prefix=",
      "--no-normalize",
      "--json",
    ]);
    expect(jsonLines(jsonl.stdout)).toEqual([
      expect.objectContaining({ output: "vectors.jsonl", rows: 5, dimension: 32 }),
    ]);
    const raw = await encoder.encode(texts, { prefix: "", normalize: false });
    const written = jsonLines(readFileSync(temporary.path("vectors.jsonl"), "utf8")) as number[][];
    for (const [i, row] of written.entries()) {
      for (const [j, value] of row.entries()) expect(value).toBeCloseTo(raw[i]?.[j] as number, 5);
    }
  });

  it("take a column of a CSV file and a key of JSON lines", async () => {
    writeFileSync(temporary.path("t.jsonl"), '{"text":"a b"}\n{"text":"c"}\n');
    for (const [input, column, rows] of [
      ["test.csv", "question2", 60],
      ["t.jsonl", "text", 2],
    ] as const) {
      const args = ["encode", "--model_name_or_path=model", `--input=${input}`, `--column=${column}`];
      const { code, stderr } = await runHere([...args, "--output=v.npy"]);
      expect(code, stderr).toBe(0);
      expect(readNpy(temporary.path("v.npy")).shape).toEqual([rows, 32]);
    }
  });
});

describe("other data and losses", () => {
  // An anchor shares nothing with its positive, and half of its words with its negative.
  const letters = ["a b c d", "e f g h", "i j k l", "m n o p"];
  const triplets = letters.flatMap((anchor, i) =>
    range(6).map((n) => ({
      anchor: `${anchor} ${n}`,
      positive: `${["q r", "s t", "u v", "w x"][i]} ${n}`,
      negative: `${anchor.slice(0, 4)} y z ${n}`,
      similarity: n / 5,
    })),
  );
  const COLUMNS = ["--anchor_column=anchor", "--positive_column=positive"];
  const FLAGS = [
    "--model_name_or_path=model",
    "--dataset_name=triplets.jsonl.gz",
    "--learning_rate=2e-2",
    ...COLUMNS,
  ];

  beforeAll(() => {
    const lines = triplets.map((row) => JSON.stringify(row)).join("\n");
    writeFileSync(temporary.path("triplets.jsonl.gz"), gzipSync(lines));
  });

  it("train on triplets of a gzip file and measure their accuracy, before and after as eval does", async () => {
    const triplet = ["--loss=triplet", "--negative_column=negative", "--distance=cosine", "--margin=0.5"];
    const evaluated = "--eval_dataset_name=triplets.jsonl.gz";
    const run = await runHere([
      ...FLAGS,
      ...triplet,
      evaluated,
      "--num_train_epochs=8",
      "--per_device_train_batch_size=4",
      "--output_dir=triplet",
    ]);
    expect(run.code, run.stderr).toBe(0);
    const [, before, after] =
      /before training: ([\d.]+)\n.*after epoch 8\/8: ([\d.]+)/s.exec(run.stdout) ?? [];
    expect(run.stdout).toContain("Triplet accuracy before training");
    expect(Number(after)).toBeGreaterThan(Number(before));
    const next = /npx peft-train (eval .*)/.exec(run.stdout)?.[1] ?? "";
    const found = await runHere([...next.split(" "), "--json"]);
    expect(jsonLines(found.stdout)[0]).toMatchObject({ triplets: 24 });
    expect(jsonLines(found.stdout)[0].triplet_accuracy).toBeCloseTo(Number(after), 4);
  });

  it("train on scores and measure correlations", async () => {
    const cosent = ["--loss=cosent", "--score_column=similarity", "--eval_fraction=0.3"];
    const run = await runHere([...FLAGS, ...cosent, "--num_train_epochs=1", "--output_dir=cosent"]);
    expect(run.code, run.stderr).toBe(0);
    expect(run.stdout).toMatch(/Spearman before training: -?0\.\d{4}\nSpearman after epoch 1\/1: -?0\.\d{4}/);
    expect(run.stdout).toContain("Pearson");
  });

  it("rank a whole batch under both names of the loss", async () => {
    const ranking = [
      "--loss=cached_multiple_negatives_ranking",
      "--matryoshka_dims=32,16",
      "--negative_column=negative",
    ];
    const run = await runHere([...FLAGS, ...ranking, "--num_train_epochs=2", "--output_dir=ranking"]);
    expect(run.code, run.stderr).toBe(0);
    const plain = [...FLAGS, ...ranking.with(0, "--loss=multiple_negatives_ranking")];
    expect((await runHere([...plain, "--num_train_epochs=2", "--output_dir=plain"])).code).toBe(0);
    const weights = (folder: string) => readFileSync(temporary.path(folder, "adapter_model.safetensors"));
    expect(weights("plain").equals(weights("ranking"))).toBe(true);
  });
});

describe("a run", () => {
  it("gives the same bytes for the same seed, and others for another", async () => {
    const weights = async (name: string, ...more: string[]) => {
      const { code, stderr } = await runHere([
        ...TRAIN,
        `--output_dir=${name}`,
        "--max_train_steps=4",
        "--quiet",
        ...more,
      ]);
      expect(code, stderr).toBe(0);
      expect(stderr).toBe("");
      return readFileSync(temporary.path(name, "adapter_model.safetensors"));
    };
    const first = await weights("same-1");
    expect((await weights("same-2")).equals(first)).toBe(true);
    expect((await weights("same-3", "--seed=43")).equals(first)).toBe(false);
    for (const file of ["adapter_config.json", "peft_train.json"]) {
      expect(readFileSync(temporary.path("same-1", file))).toEqual(
        readFileSync(temporary.path("same-2", file)),
      );
    }
  });

  it("in batches that are accumulated takes the steps of one in large batches", async () => {
    const losses = async (name: string, ...more: string[]) => {
      const outcome = await runHere([
        ...TRAIN,
        "--num_train_epochs=1",
        "--dropout=0",
        `--output_dir=${name}`,
        "--json",
        ...more,
      ]);
      expect(outcome.code, outcome.stderr).toBe(0);
      return jsonLines(outcome.stdout).filter(({ event }) => event === "step");
    };
    const large = await losses("large", "--per_device_train_batch_size=32");
    const small = await losses("small", "--per_device_train_batch_size=8", "--gradient_accumulation_steps=4");
    expect(large).toHaveLength(5);
    expect(small.map(({ loss }) => loss)).toEqual(large.map(({ loss }) => loss));
  });

  it("with --json puts nothing but JSON on stdout", async () => {
    const outcome = await runHere([...TRAIN, "--output_dir=json", "--max_train_steps=3", "--json"]);
    const events = jsonLines(outcome.stdout);
    expect(events.map(({ event }) => event)).toEqual([
      "started",
      "memory",
      "evaluated",
      "step",
      "step",
      "step",
      "log",
      "evaluated",
      "saved",
      "finished",
    ]);
    expect(events[0]).toMatchObject({ trainable_parameters: 3072, train_pairs: 160 });
  });
});

describe("Ctrl-C", () => {
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    it(`as ${signal} stops after the step in hand, says what was kept and exits with ${code}`, async () => {
      const name = `stopped-${code}`;
      const args = [...TRAIN, `--output_dir=${name}`, "--num_train_epochs=10000", "--logging_steps=1"];
      const child = startCli(args, { cwd: temporary.path() });
      const ended = outcome(child);
      await new Promise<void>((resolve) => {
        child.stderr.on("data", (text: string) => {
          if (text.includes("step ")) resolve();
        });
      });
      child.kill(signal);
      const { code: found, stdout, stderr } = await ended;
      expect(found, stderr).toBe(code);
      expect(stderr).toContain("stopping after the step in hand");
      const step = /Kept: the adapter as it stood after step ([\d,]+), in /
        .exec(stdout)?.[1]
        ?.replace(",", "");
      const record = JSON.parse(readFileSync(temporary.path(name, "peft_train.json"), "utf8"));
      expect(record.step).toBe(Number(step));
      const evaluated = await runHere([
        "eval",
        "--model_name_or_path=model",
        `--adapter=${name}`,
        "--dataset_name=test.csv",
        "--json",
      ]);
      expect(evaluated.code, evaluated.stderr).toBe(0);
      expect(readdirSync(temporary.path()).filter((entry) => entry.startsWith("."))).toEqual([]);
    });
  }

  it("leaves no vectors when it stops encode", async () => {
    writeFileSync(temporary.path("many.txt"), "a b c d e f g h\n".repeat(400_000));
    const child = startCli(
      ["encode", "--model_name_or_path=model", "--input=many.txt", "--output=many.npy"],
      {
        cwd: temporary.path(),
      },
    );
    const ended = outcome(child);
    const written = () => existsSync(temporary.path("many.npy.partial"));
    while (!written() && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill("SIGINT");
    const { code, stderr } = await ended;
    expect(code, stderr).toBe(130);
    expect(existsSync(temporary.path("many.npy"))).toBe(false);
    expect(written()).toBe(existsSync(temporary.path("many.npy.partial.json")));
  });
});
