import { appendFileSync, cpSync, writeFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { exampleBatch } from "../../../lib/data/batch.js";
import type { ExampleBatch, NativeEncoder, TokenBatch } from "../../../lib/native/types.js";
import { Drift } from "../../../lib/train/evaluation/drift.js";
import type { TrainEvent } from "../../../lib/train/events.js";
import { flagLabel } from "../../../lib/train/options/option-value.js";
import { resolveOptions, type TrainOptions } from "../../../lib/train/options/options.js";
import { anchoredSide } from "../../../lib/train/step/anchor.js";
import { drawTexts, splitPlaces } from "../../../lib/train/step/base-texts.js";
import { train } from "../../../lib/train/train.js";
import { FakeEngine } from "../../support/fake-engine.js";
import { writePairs } from "../../support/pairs-file.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { writeTinyModel } from "../../support/tiny-model.js";

const temporary = temporaryFolder();
const WIDTH = 32;
let runs = 0;

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("pairs.csv"), 24);
  const texts = Array.from({ length: 12 }, (_, i) => JSON.stringify({ text: `k ${"l ".repeat(i)}` }));
  writeFileSync(temporary.path("keep.jsonl"), texts.join("\n"));
  const rows = Array.from({ length: 9 }, (_, i) =>
    JSON.stringify({
      anchor: `a ${"b ".repeat(i)}`,
      positive: `c ${"d ".repeat(i)}`,
      far: "e f",
      other: "g",
    }),
  );
  writeFileSync(temporary.path("triplets.jsonl"), rows.join("\n"));
});

function options(changes: Partial<TrainOptions>): TrainOptions {
  return {
    modelNameOrPath: temporary.path("model"),
    datasetName: temporary.path("pairs.csv"),
    outputDir: temporary.path(`out-${runs++}`),
    perDeviceTrainBatchSize: 10,
    numTrainEpochs: 1,
    ...changes,
  };
}

async function run(changes: Partial<TrainOptions>, engine = new FakeEngine()) {
  const events: TrainEvent[] = [];
  for await (const event of train(options(changes), { engine: () => engine })) events.push(event);
  return { engine, batches: engine.steps.map(({ batch }) => batch), events };
}

/** What the fake engine gives for every text of a batch. */
async function vectorsOf(batch: TokenBatch): Promise<number[][]> {
  const native = await new FakeEngine().open({ shape: { hiddenSize: WIDTH } } as never);
  const all = await native.encode(batch, { adapter: false, normalize: true, microBatchTokens: 1 });
  return Array.from({ length: batch.cuSeqlens.length - 1 }, (_, i) => [...rows(all, i)]);
}

const rows = (values: Float32Array, i: number): Float32Array => values.subarray(WIDTH * i, WIDTH * (i + 1));

const textsOf = ({ ids, cuSeqlens }: { ids: Int32Array; cuSeqlens: Int32Array }): string[] =>
  [...cuSeqlens.subarray(1)].map((end, i) => ids.subarray(cuSeqlens[i], end).join(" "));

describe("the anchored side", () => {
  const side = (given: Record<string, unknown>) => {
    const required = { model_name_or_path: "m", dataset_name: "d.csv", output_dir: "out" };
    return anchoredSide(resolveOptions({ ...required, ...given }), flagLabel);
  };

  it("goes by its name or its column's, and the column comes first", () => {
    expect(side({})).toBeUndefined();
    expect(side({ anchor: "question1" })).toBe("first");
    expect(side({ anchor: "question2" })).toBe("others");
    const columns = { question1_column: "query", question2_column: "answer" };
    expect(side({ ...columns, anchor: "query" })).toBe("first");
    expect(side({ ...columns, anchor: "answer" })).toBe("others");
    const swapped = { question1_column: "question2", question2_column: "question1" };
    expect(side({ ...swapped, anchor: "question2" })).toBe("first");
  });

  it("is refused where there is none of that name", () => {
    expect(() => side({ anchor: "query" })).toThrow("--anchor=query: expected one of question1, question2");
    expect(() => side({ anchor: "label", question2_column: "answer" })).toThrow(
      "--anchor=label: expected one of question1, question2, answer",
    );
    expect(() => side({ anchor: "question1", loss: "mse", teacher_embeddings: "t.npy" })).toThrow(
      "--anchor=question1: --loss=mse has single texts",
    );
    expect(() => side({ keep_dataset: "k.jsonl" })).toThrow("--keep_dataset needs --keep_weight, or --eval");
    expect(() => side({ keep_weight: "0" })).toThrow("--keep_weight=0: expected a number above 0");
  });
});

describe("anchored training", () => {
  it("hands the engine one side as tokens, and the other as vectors of the base model", async () => {
    const plain = await run({});
    for (const [anchor, place] of [
      ["question1", 0],
      ["question2", 1],
    ] as const) {
      const { engine, batches } = await run({ anchor });
      expect(batches).toHaveLength(3);
      for (const [step, batch] of batches.entries()) {
        const whole = plain.batches[step] as ExampleBatch;
        expect(batch.labels).toEqual(whole.labels);
        expect(batch).toMatchObject({ textsPerExample: 2, fixed: { first: place, count: 1 } });
        expect(textsOf(batch)).toEqual(textsOf(whole).filter((_, i) => i % 2 !== place));
        const expected = (await vectorsOf(whole)).filter((_, i) => i % 2 === place);
        expect([...(batch.fixed?.vectors ?? [])]).toEqual(expected.flat());
        expect(batch.kept).toBeUndefined();
      }
      expect(engine.encoded.every(({ adapter }) => !adapter)).toBe(true);
    }
  });

  it("anchors negatives with the positive, each text embedded once", async () => {
    const { engine, batches } = await run({
      datasetName: temporary.path("triplets.jsonl"),
      loss: "multiple_negatives_ranking",
      question1Column: "anchor",
      question2Column: "positive",
      negativeColumn: ["far", "other"],
      anchor: "positive",
    });
    expect(batches[0]).toMatchObject({ textsPerExample: 4, fixed: { first: 1, count: 3 } });
    expect(textsOf(batches[0] as ExampleBatch)).toHaveLength(9);
    expect(batches[0]?.fixed?.vectors).toHaveLength(9 * 3 * WIDTH);
    // Nine positives, and two negatives that come again in every example.
    expect(engine.encoded.flatMap(({ batch }) => textsOf(batch))).toHaveLength(11);
  });
});

describe("kept texts", () => {
  it("are those of their file but for half of it, the next few a step", async () => {
    const { batches, engine } = await run({
      keepDataset: temporary.path("keep.jsonl"),
      keepWeight: 1.5,
      perDeviceTrainBatchSize: 4,
    });
    const kept = batches.map((batch) => textsOf(batch.kept as TokenBatch));
    expect(kept.map((texts) => texts.length)).toEqual(Array(6).fill(4));
    expect(new Set(kept.flat()).size).toBe(6);
    // Six texts in one order, over and over.
    expect(kept.flat()).toEqual(Array.from({ length: 24 }, (_, i) => kept.flat()[i % 6]));
    for (const batch of batches) {
      expect(batch.kept?.weight).toBe(1.5);
      expect([...(batch.kept?.vectors ?? [])]).toEqual((await vectorsOf(batch.kept as TokenBatch)).flat());
    }
    expect(engine.encoded.every(({ adapter }) => !adapter)).toBe(true);
  });

  it("are of the anchored side unless a file is given, or of both", async () => {
    const sides = async (changes: Partial<TrainOptions>) => {
      const { batches } = await run({ ...changes, keepWeight: 1 });
      return new Set(batches.flatMap((batch) => textsOf(batch.kept as TokenBatch)));
    };
    const plain = await run({});
    const all = plain.batches.flatMap(textsOf);
    const seconds = new Set(all.filter((_, i) => i % 2 === 1));
    expect([...(await sides({ anchor: "question2" }))].every((text) => seconds.has(text))).toBe(true);
    const both = await sides({});
    expect([...both].every((text) => all.includes(text))).toBe(true);
    expect([...both].some((text) => !seconds.has(text))).toBe(true);
  });

  it("must be the same where a run goes on", async () => {
    const file = temporary.path("changing.jsonl");
    cpSync(temporary.path("keep.jsonl"), file);
    const given = options({ keepDataset: file, keepWeight: 1, checkpointingSteps: 1, maxTrainSteps: 2 });
    const engine = () => new FakeEngine();
    await train(given, { engine }).result;
    cpSync(file, temporary.path("moved.jsonl"));
    const goOn = { ...given, resumeFromCheckpoint: "latest" };
    await train({ ...goOn, keepDataset: temporary.path("moved.jsonl") }, { engine }).result;
    appendFileSync(file, '\n{"text":"more"}');
    await expect(train(goOn, { engine }).result).rejects.toMatchObject({
      code: "CHECKPOINT_MISMATCH",
      message: expect.stringMatching(/--keep_dataset has SHA-256 \w{64}; that of .*changing\.jsonl is/),
    });
    await expect(train({ ...goOn, keepWeight: 2 }, { engine }).result).rejects.toMatchObject({
      message: expect.stringContaining("--keep_weight was 1 and is 2"),
    });
  });
});

describe("drift", () => {
  it("is the mean cosine to what the base model gave", async () => {
    // Two texts: one stays, the other turns by 60 degrees.
    let turned = 0;
    const native = {
      info: () => ({ device: "cpu" }),
      encode: async ({ ids }: { ids: Int32Array }, { adapter }: { adapter: boolean }) => {
        if (adapter) turned++;
        return Float32Array.from(
          [...ids].flatMap((id) => (adapter && id === 2 ? [0.5, Math.sqrt(0.75)] : [1, 0])),
        );
      },
    } as unknown as NativeEncoder;
    const texts = { ids: Int32Array.of(1, 2, 1, 2), offsets: [0, 1, 2, 3, 4] };
    let stop = false;
    const run = { native, onProgress: () => {}, stopped: () => stop };
    const drift = await Drift.prepare(texts, 1, run);
    expect(turned).toBe(0);
    expect(await drift.measure()).toBeCloseTo(0.75, 6);
    stop = true;
    expect(await drift.measure()).toBeUndefined();
    await expect(Drift.prepare(texts, 1, run)).rejects.toMatchObject({ code: "ABORTED" });
  });

  it("is told beside every evaluation, of texts that are not kept", async () => {
    const keepDataset = temporary.path("keep.jsonl");
    const { events, engine, batches } = await run({ keepDataset, keepWeight: 1, evalFraction: 0.5 });
    const evaluations = events.filter(({ event }) => event === "evaluated");
    expect(evaluations).toHaveLength(2);
    for (const evaluation of evaluations) {
      expect(evaluation).toMatchObject({ metrics: { baseCosine: expect.closeTo(1) } });
    }
    const kept = new Set(batches.flatMap((batch) => textsOf(batch.kept as TokenBatch)));
    const measured = textsOf(engine.encoded.at(-1)?.batch as TokenBatch);
    expect(measured).toHaveLength(6);
    expect(measured.some((text) => kept.has(text))).toBe(false);
  });
});

describe("texts of a data set", () => {
  const dataset = {
    path: "d",
    sha256: "",
    kind: "negatives" as const,
    textsPerExample: 3,
    count: 2,
    positives: 0,
    ids: Int32Array.of(1, 2, 2, 3, 4, 5, 5, 6),
    offsets: Float64Array.of(0, 1, 3, 4, 5, 7, 8),
    labels: new Float32Array(0),
  };

  it("are split by their places", () => {
    const { taken, rest } = splitPlaces(dataset, { first: 1, count: 1 });
    expect(taken).toEqual({ ids: Int32Array.of(2, 2, 5, 5), offsets: Float64Array.of(0, 2, 4) });
    expect(rest).toMatchObject({ textsPerExample: 2, count: 2, ids: Int32Array.of(1, 3, 4, 6) });
    expect(exampleBatch(rest, Int32Array.of(1)).ids).toEqual(Int32Array.of(4, 6));
  });

  it("are drawn by the seed", () => {
    const draw = (seed: number) => [...drawTexts(dataset, 4, seed).ids];
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
    expect(drawTexts(dataset, 100, 1).offsets).toHaveLength(7);
  });
});
