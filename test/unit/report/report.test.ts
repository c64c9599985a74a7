import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { PeftTrainError } from "../../../lib/errors.js";
import { renderReport } from "../../../lib/report/page.js";
import { parseRunLog, readRunLog } from "../../../lib/report/run-log.js";
import type { TrainOptions } from "../../../lib/train/options/options.js";
import { train } from "../../../lib/train/train.js";
import { FakeEngine } from "../../support/fake-engine.js";
import { HOSTILE, writeHostilePairs } from "../../support/hostile-pairs.js";
import { writePairs } from "../../support/pairs-file.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { writeTinyModel } from "../../support/tiny-model.js";

const temporary = temporaryFolder();
let count = 0;
let shared: Pick<TrainOptions, "modelNameOrPath" | "datasetName">;

beforeAll(() => {
  shared = {
    modelNameOrPath: writeTinyModel(temporary.path("model")),
    datasetName: writePairs(temporary.path("train.csv"), 23),
  };
  writeHostilePairs(temporary.path("eval.csv"));
});

function options(changes: Partial<TrainOptions> = {}): TrainOptions {
  return {
    ...shared,
    evalDatasetName: temporary.path("eval.csv"),
    outputDir: temporary.path(`out-${count++}`),
    perDeviceTrainBatchSize: 5,
    numTrainEpochs: 2,
    ...changes,
  };
}

const reportOf = ({ outputDir }: TrainOptions) => readFileSync(join(outputDir, "report.html"), "utf8");
const logOf = ({ outputDir }: TrainOptions) => readFileSync(join(outputDir, "train_log.jsonl"), "utf8");
const run = (given: TrainOptions) => train(given, { engine: () => new FakeEngine() }).result;
const ids = (html: string) =>
  [...html.matchAll(/<figure class="card chart" id="([\w-]+)"/g)].map(([, id]) => id);

describe("report.html", () => {
  it("shows curves, scores, threshold and the mistakes with their texts", async () => {
    const given = options();
    await run(given);
    const html = reportOf(given);
    expect(ids(html)).toEqual([
      "loss",
      "headline",
      "drift",
      "learning-rate",
      "throughput",
      "roc",
      "scores-before",
      "scores-after",
    ]);
    for (const part of [
      "Best threshold",
      "best threshold",
      "Worst mistakes",
      "num_train_epochs",
      "Adam&#39;s moments",
    ]) {
      expect(html).toContain(part);
    }
    expect(html).toMatch(/<td class="place">row \d+<\/td>/);
    expect(html.length).toBeLessThan(120_000);
  });

  it("holds hostile texts as text alone", async () => {
    const given = options();
    await run(given);
    const html = reportOf(given);
    expect(html).toContain("&lt;img src=x onerror=");
    expect(html).toContain("&lt;/script&gt;&lt;script&gt;");
    for (const text of HOSTILE) expect(html).not.toContain(text);
    expect(html).not.toMatch(/<(img|iframe|object|embed|link|base|form)\b/i);
    // Two elements of our own: the data and the script.
    expect(html.match(/<script/gi)).toHaveLength(2);
    expect(html.match(/<\/script/gi)).toHaveLength(2);
    expect(html).not.toMatch(/<[^>]*\son\w+=/);
  });

  it("asks the network for nothing, and allows no script but its own", async () => {
    const given = options();
    await run(given);
    const html = reportOf(given);
    expect(html.match(/(?:https?:)?\/\/[\w.-]+\.\w+[^"' <]*/g)).toEqual(["http://www.w3.org/2000/svg"]);
    expect(html).not.toMatch(/\b(src|href|srcset|data|action)=["']/i);
    expect(html).not.toMatch(/@import|url\(/);
    const policy =
      /Content-Security-Policy" content="([^"]+)"/.exec(html)?.[1]?.replaceAll("&#39;", "'") ?? "";
    expect(policy).toContain("default-src 'none'");
    for (const [element, directive] of [
      ["style", "style-src"],
      ["script", "script-src"],
    ]) {
      const content = new RegExp(`<${element}>([\\s\\S]*?)</${element}>`).exec(html)?.[1] ?? "";
      const hash = createHash("sha256").update(content).digest("base64");
      expect(policy).toContain(`${directive} 'sha256-${hash}'`);
    }
  });

  it("is made again from the log to the same bytes", async () => {
    const given = options();
    await run(given);
    expect(renderReport(await readRunLog(given.outputDir))).toBe(reportOf(given));
  });

  it("says that a run was stopped, and where it went on", async () => {
    const given = options({ numTrainEpochs: 4 });
    const stopped = train(given, { engine: () => new FakeEngine() });
    for await (const event of stopped) if (event.event === "step" && event.step === 7) stopped.stop();
    await stopped.result;
    expect(reportOf(given)).toMatch(/Stopped after step \d+ of 20\./);
    await run({ ...given, resumeFromCheckpoint: "latest" });
    const html = reportOf(given);
    expect(html).toMatch(/It went on from a checkpoint at step \d+\./);
    expect(html).not.toContain("Stopped after");
    const { curve } = await readRunLog(given.outputDir);
    expect(curve.steps).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
  });

  it("of a run that was killed tells as far as its log does", async () => {
    const given = options();
    await run(given);
    const lines = logOf(given).split("\n");
    const at = lines.findIndex((line) => line.includes('"event":"curve"'));
    const cut = `${lines.slice(0, at + 1).join("\n")}\n{"event":"sav`;
    const html = renderReport(parseRunLog(cut, "log", {}));
    expect(html).toContain("this is as far as its log tells");
    expect(ids(html)).toContain("scores-after");
    expect(html).not.toContain("Worst mistakes");
  });

  it("says why texts are missing where their file has changed or is gone", async () => {
    const evalDatasetName = writeHostilePairs(temporary.path("gone.csv"));
    const given = options({ evalDatasetName });
    const engine = new FakeEngine();
    engine.onStep = (step) => {
      if (step === 3) rmSync(evalDatasetName);
      return undefined;
    };
    await train(given, { engine: () => engine }).result;
    expect(reportOf(given)).toMatch(/could not be read again: there is no file .*gone\.csv/);
    expect(reportOf(given)).toMatch(/<td class="place">example \d+<\/td>/);
  });

  it("fails the run where it cannot be written, and says how to make it", async () => {
    const given = options();
    const engine = new FakeEngine();
    const blocked = join(given.outputDir, "report.html", "in the way");
    const going = train(given, { engine: () => engine });
    for await (const event of going) {
      if (event.event === "saved" && event.step === 10) execFileSync("mkdir", ["-p", blocked]);
      if (event.event === "saved" && event.step === 10) break;
    }
    const error = await going.result.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(PeftTrainError);
    expect(error).toMatchObject({
      code: "OUTPUT_UNWRITABLE",
      hint: expect.stringContaining("npx peft-train report"),
    });
  });
});

describe("--no-report", () => {
  it("writes none and keeps no data for one; what the log has can be shown still", async () => {
    const given = options({ report: false, loggingSteps: 2 });
    await run(given);
    expect(() => reportOf(given)).toThrow("ENOENT");
    expect(logOf(given)).not.toMatch(/"event":"(curve|scores|report)"/);
    const html = renderReport(await readRunLog(given.outputDir));
    expect(ids(html)).toEqual(["loss", "headline", "drift", "learning-rate"]);
    expect(html).toContain("With <code>--no-report</code> a run keeps no scores");
  });

  it("changes nothing of the adapter and its record", async () => {
    const [with_, without] = [options(), options({ report: false })];
    await Promise.all([run(with_), run(without)]);
    for (const name of ["adapter_model.safetensors", "adapter_config.json", "peft_train.json"]) {
      expect(readFileSync(join(with_.outputDir, name))).toEqual(readFileSync(join(without.outputDir, name)));
    }
  });
});

describe("other kinds of data", () => {
  it("scored pairs get cosines by score and the pairs whose ranks differ", async () => {
    const file = temporary.path("scored.csv");
    const rows = Array.from(
      { length: 30 },
      (_, i) => `a b ${"cdefgh"[i % 6]},a ${"cdefgh"[(i * 5) % 6]} x,${(i % 11) / 2}`,
    );
    writeFileSync(file, `question1,question2,score\n${rows.join("\n")}\n`);
    const given = options({ datasetName: file, evalDatasetName: file, scoreColumn: "score", loss: "cosent" });
    await run(given);
    const html = reportOf(given);
    expect(ids(html)).toEqual(["loss", "headline", "drift", "learning-rate", "throughput", "by-score"]);
    expect(html).toContain("Spearman by epoch");
    expect(html).toContain("farthest from their place by score");
  });

  it("triplets get margins, and the negative that is nearest", async () => {
    const file = temporary.path("triplets.csv");
    const rows = Array.from(
      { length: 30 },
      (_, i) => `a b ${"cdefgh"[i % 6]},a b x,c ${"mnopq"[i % 5]},a b ${"rst"[i % 3]}`,
    );
    writeFileSync(file, `question1,question2,n1,n2\n${rows.join("\n")}\n`);
    const given = options({
      datasetName: file,
      evalDatasetName: file,
      negativeColumn: ["n1", "n2"],
      loss: "multiple_negatives_ranking",
    });
    await run(given);
    const html = reportOf(given);
    expect(ids(html).slice(-2)).toEqual(["scores-before", "scores-after"]);
    expect(html).toContain("right from here");
    expect(html).toMatch(/<span class="note">negative: <\/span>/);
  });

  it("a run without an evaluation set says so", async () => {
    const given = options({ evalDatasetName: null });
    await run(given);
    expect(reportOf(given)).toContain("There was nothing to measure on");
    expect(ids(reportOf(given))).toEqual(["loss", "learning-rate", "throughput"]);
  });
});

it("a log that is none is refused with its line", () => {
  expect(() => parseRunLog('{"event":"started"}\nnonsense\n', "out/train_log.jsonl", {})).toThrow(
    "out/train_log.jsonl, line 2: expected a JSON object",
  );
  expect(() => parseRunLog("", "out/train_log.jsonl", {})).toThrow("does not tell of the beginning");
});
