import * as fs from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it, vi } from "vitest";
import { type AdapterContent, openAdapterFolder } from "../../../lib/adapter/folder.js";
import { fingerprint } from "../../../lib/model/fingerprint.js";
import { type ModelFolder, openModelFolder } from "../../../lib/model/folder.js";
import type { CheckpointContent } from "../../../lib/train/checkpoint/checkpoint.js";
import { findCheckpoint } from "../../../lib/train/checkpoint/find-checkpoint.js";
import { OutputFolder } from "../../../lib/train/output/output.js";
import type { ModelContent } from "../../../lib/train/output/saved-model.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { writeTinyModel } from "../../support/tiny-model.js";

/** Stands for the process: from `killAt` on, no file operation of it has any effect. */
const life = vi.hoisted(() => ({ operations: 0, killAt: Number.POSITIVE_INFINITY }));

vi.mock("node:fs", async (original) =>
  mortal(await original(), ["renameSync", "rmSync", "unlinkSync", "fsyncSync"]),
);
vi.mock("node:fs/promises", async (original) =>
  mortal(await original(), ["rename", "rm", "rmdir", "mkdir", "writeFile", "open", "unlink"]),
);

function mortal<T extends object>(module: T, names: readonly string[]): T {
  const wrapped = names.map((name) => {
    const real = Reflect.get(module, name) as (...args: unknown[]) => unknown;
    const mocked = (...args: unknown[]): unknown => {
      if (++life.operations >= life.killAt) throw new Error("killed");
      return real(...args);
    };
    return [name, mocked];
  });
  return { ...module, ...Object.fromEntries(wrapped) };
}

const temporary = temporaryFolder();
const models: Record<string, ModelFolder> = {};

beforeAll(async () => {
  for (const run of ["first", "second"]) {
    const folder = writeTinyModel(temporary.path(run));
    models[run] = await openModelFolder(folder);
  }
  // The second model's tokenizer has no such file: it must not stay from the first.
  fs.writeFileSync(temporary.path("first", "vocab.txt"), "of the first");
});

/** An adapter whose every file tells which save it is of. */
async function content(run: "first" | "second", step: number): Promise<AdapterContent> {
  const model = models[run] as ModelFolder;
  const mark = `${run} ${step}`;
  const header = JSON.stringify({
    __metadata__: { mark },
    a: { dtype: "F32", shape: [1], data_offsets: [0, 4] },
  });
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return {
    config: JSON.stringify({
      peft_type: "LORA",
      target_modules: ["query"],
      inference_mode: true,
      revision: mark,
    }),
    saveWeights: async (file) =>
      fs.writeFileSync(file, Buffer.concat([length, Buffer.from(header), Buffer.alloc(4)])),
    model,
    record: {
      version: "0.1.0",
      baseModel: mark,
      base: await fingerprint(model),
      question1Prefix: "",
      question2Prefix: "",
      pooling: "mean",
      normalize: true,
      maxLength: 64,
      threshold: null,
      seed: 1,
      step,
      epoch: step,
      training: {},
    },
  };
}

/** What a checkpoint holds beside its adapter. */
function state(step: number): CheckpointContent {
  return {
    state: {
      step,
      epochsEnded: step,
      pairs: 0,
      stepSeconds: 0,
      sinceLog: { steps: 0, loss: 0 },
      evaluations: [],
    },
    identity: {
      options: {},
      totalSteps: 9,
      warmupSteps: 0,
      trainPairs: 1,
      trainSha256: "",
      evalPairs: 0,
      evalSha256: null,
    },
    machine: {
      device: "cpu",
      threads: 1,
      cpuKernels: "generic",
      torchVersion: "0.0.0",
      microBatchTokens: 512,
    },
    withBest: false,
    saveOptimizer: async (file) => fs.writeFileSync(file, String(step)),
  };
}

/** Saves of which the files of a folder are, where PEFT or this package would take it for an adapter. */
function marks(folder: string): string[] | undefined {
  const read = (name: string) => fs.readFileSync(join(folder, name), "utf8");
  const names = fs.existsSync(folder) ? fs.readdirSync(folder) : [];
  if (!names.includes("adapter_config.json")) return undefined;
  const found = [
    JSON.parse(read("adapter_config.json")).revision,
    /"mark":"([^"]*)"/.exec(read("adapter_model.safetensors"))?.[1],
    JSON.parse(read("peft_train.json")).base_model,
  ];
  expect(names).toContain("tokenizer.json");
  expect(names.includes("vocab.txt")).toBe(found[0].startsWith("first"));
  return [...new Set(found)];
}

describe("an output folder behind a link", () => {
  it("takes the files where the link leads to a folder", async () => {
    fs.mkdirSync(temporary.path("elsewhere"));
    fs.symlinkSync("elsewhere", temporary.path("link"));
    await using output = await OutputFolder.open(temporary.path("link"), { overwrite: false });
    await output.save(await content("first", 1), "{}");
    expect(marks(temporary.path("elsewhere"))).toEqual(["first 1"]);
  });

  it("is refused before training where the link leads nowhere", async () => {
    fs.symlinkSync("nowhere", temporary.path("dangling"));
    await expect(OutputFolder.open(temporary.path("dangling"), { overwrite: false })).rejects.toMatchObject({
      code: "OUTPUT_EXISTS",
      message: expect.stringContaining("dangling is a link to a folder that is not there"),
    });
  });
});

describe("a run that is killed over an earlier one", () => {
  it("leaves, wherever it is killed, files of one save or no adapter", async () => {
    const [first, second, third] = [
      await content("first", 1),
      await content("second", 2),
      await content("second", 3),
    ];
    const earlier = temporary.path("earlier");
    const run = await OutputFolder.open(earlier, { overwrite: false });
    await run.saveCheckpoint("epoch_0", first, state(1), null);
    await run.save(first, "{}");
    await run[Symbol.asyncDispose]();
    const seen = new Set<string>();
    let refused = 0;
    for (let killAt = 1; ; killAt++) {
      const out = temporary.path(`out-${killAt}`);
      fs.cpSync(earlier, out, { recursive: true });
      Object.assign(life, { operations: 0, killAt });
      let killed = false;
      try {
        await using output = await OutputFolder.open(out, { overwrite: true });
        await output.saveCheckpoint("epoch_0", second, state(2), null);
        await output.save(second, "{}");
        await output.saveCheckpoint("epoch_0", third, state(3), null);
        await output.save(third, "{}");
      } catch {
        killed = true;
      }
      life.killAt = Number.POSITIVE_INFINITY;
      // Wherever it was killed, what is there as a checkpoint is whole.
      expect((await findCheckpoint("latest", out, true)).warnings.join()).not.toContain("skipped");
      for (const folder of [out, join(out, "epoch_0")]) {
        const found = marks(folder);
        if (found !== undefined) {
          expect(found, `${folder}, killed at ${killAt}`).toHaveLength(1);
          seen.add(`${folder.endsWith("epoch_0") ? "epoch_0" : "out"}: ${found[0]}`);
        } else if (folder === out) {
          refused++;
          await expect(openAdapterFolder(out, models.second as ModelFolder)).rejects.toMatchObject({
            code: "FILE_NOT_FOUND",
            message: expect.stringMatching(/no adapter_config\.json: a run was killed/),
          });
        }
      }
      if (!killed) break;
    }
    expect([...seen].sort()).toEqual([
      "epoch_0: first 1",
      "epoch_0: second 2",
      "epoch_0: second 3",
      "out: first 1",
      "out: second 2",
      "out: second 3",
    ]);
    expect(refused).toBeGreaterThan(10);
  });

  it("leaves, wherever it is killed, one save of a whole model or none", async () => {
    const model = async (step: number): Promise<ModelContent> => {
      const { saveWeights, record, model: base } = await content("first", step);
      const prefixes = { query: `first ${step}`, document: "" };
      return {
        saveWeights,
        record,
        model: base,
        sentence: { pooling: "mean", dimension: 32, normalize: true, maxLength: 9, ...prefixes },
      };
    };
    const [first, second] = [await model(1), await model(2)];
    const earlier = temporary.path("earlier-model");
    const run = await OutputFolder.open(earlier, { overwrite: false });
    await run.save(first, "{}");
    await run[Symbol.asyncDispose]();
    const seen = new Set<string>();
    let refused = 0;
    for (let killAt = 1; ; killAt++) {
      const out = temporary.path(`out-model-${killAt}`);
      fs.cpSync(earlier, out, { recursive: true });
      Object.assign(life, { operations: 0, killAt });
      let killed = false;
      try {
        await using output = await OutputFolder.open(out, { overwrite: true });
        await output.save(second, "{}");
      } catch {
        killed = true;
      }
      life.killAt = Number.POSITIVE_INFINITY;
      if (fs.existsSync(join(out, "config.json"))) {
        const read = (name: string) => fs.readFileSync(join(out, name), "latin1");
        const found = new Set([
          /first \d/.exec(read("model.safetensors"))?.[0],
          JSON.parse(read("peft_train.json")).base_model,
          JSON.parse(read("config_sentence_transformers.json")).prompts.query,
        ]);
        expect(found.size, `killed at ${killAt}`).toBe(1);
        expect(read("1_Pooling/config.json")).toContain("mean");
        for (const mark of found) seen.add(mark);
      } else refused++;
      if (!killed) break;
    }
    expect([...seen].sort()).toEqual(["first 1", "first 2"]);
    expect(refused).toBeGreaterThan(5);
  });

  it("names the checkpoint that is left when its adapter is asked for", async () => {
    const out = temporary.path("checkpoint-only");
    await using output = await OutputFolder.open(out, { overwrite: false });
    await output.saveCheckpoint("step_7", await content("first", 7), state(7), null);
    await expect(openAdapterFolder(out, models.first as ModelFolder)).rejects.toMatchObject({
      hint: expect.stringContaining(join(out, "step_7")),
    });
  });
});
