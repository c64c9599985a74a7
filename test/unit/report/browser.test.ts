import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { train } from "../../../lib/train/train.js";
import { ChromiumPage, findChromium } from "../../support/chromium.js";
import { FakeEngine } from "../../support/fake-engine.js";
import { HOSTILE, writeHostilePairs } from "../../support/hostile-pairs.js";
import { writePairs } from "../../support/pairs-file.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { writeTinyModel } from "../../support/tiny-model.js";

const temporary = temporaryFolder();
const browser = findChromium();
let page: ChromiumPage;
let url: string;

beforeEach(({ skip }) => {
  skip(browser === undefined, "there is no Chromium: set PEFT_TRAIN_CHROMIUM, or put chromium on PATH");
});

describe("report.html in a browser", () => {
  beforeAll(async () => {
    if (browser === undefined) return;
    const outputDir = temporary.path("out");
    const options = {
      modelNameOrPath: writeTinyModel(temporary.path("model")),
      datasetName: writePairs(temporary.path("train.csv"), 300),
      evalDatasetName: writeHostilePairs(temporary.path("eval.csv")),
      perDeviceTrainBatchSize: 5,
      numTrainEpochs: 2,
      outputDir,
    };
    await train(options, { engine: () => new FakeEngine() }).result;
    url = pathToFileURL(join(outputDir, "report.html")).href;
    page = await ChromiumPage.open(browser, temporary.path("profile"));
  });

  afterAll(() => page?.[Symbol.asyncDispose]());

  const text = (selector: string) =>
    page.evaluate<string>(`document.querySelector(${JSON.stringify(selector)}).textContent`);
  const isShown = (selector: string) =>
    page.evaluate<boolean>(`document.querySelector(${JSON.stringify(selector)}).getClientRects().length > 0`);

  it("shows the value under the mouse, and under the arrow keys", async () => {
    await page.size(1200, 900);
    await page.goto(url);
    expect(await text("#loss .readout")).toBe("");
    await page.point("#loss svg", { across: 0.55 });
    const found = /^Step (\d+) \u00b7 loss: (0\.\d+) \u00b7 smoothed over some \d+ steps: 0\.\d+$/.exec(
      await text("#loss .readout"),
    );
    // The loss of the fake engine is one by the number of the step.
    expect(Number(found?.[2])).toBeCloseTo(1 / Number(found?.[1]), 4);
    await page.point("#roc svg", { across: 0.5 });
    expect(await text("#loss .readout")).toBe("");
    expect(await text("#roc .readout")).toMatch(
      /^False positive rate [\d.]+ \u00b7 before training: [\d.]+, cosine .* \u00b7 after step 120: /,
    );
    await page.evaluate('document.querySelector("#headline svg").focus()');
    await page.press("ArrowRight");
    expect(await text("#headline .readout")).toMatch(/^Epoch 0 \u00b7 ROC AUC: 0\.\d+, before training$/);
    await page.press("ArrowRight");
    expect(await text("#headline .readout")).toMatch(/^Epoch 1 \u00b7 ROC AUC: 0\.\d+, step 60$/);
    await page.point("#scores-after svg", { across: 0.7 });
    expect(await text("#scores-after .readout")).toMatch(/label 0 \(\d+\): [\d.]+ % \(\d+ pairs\)/);
  });

  it("changes the smoothing at a click, with a script and without", async () => {
    for (const enabled of [true, false]) {
      await page.scripts(enabled);
      await page.goto(url);
      expect(await isShown("#loss path.smooth-light")).toBe(true);
      expect(await isShown("#loss path.smooth-strong")).toBe(false);
      await page.point("#smooth-strong", { click: true });
      expect(await isShown("#loss path.smooth-light")).toBe(false);
      expect(await isShown("#loss path.smooth-strong")).toBe(true);
      await page.point("#smooth-none", { click: true });
      expect(await isShown("#loss path.smooth-strong")).toBe(false);
      expect(await isShown("#loss path.raw")).toBe(true);
    }
    await page.scripts(true);
  });

  it("runs nothing that a text holds, and shows all of it", async () => {
    await page.goto(url);
    expect(await page.evaluate("document.title")).toBe("model: training report");
    expect(
      await page.evaluate("document.images.length + document.querySelectorAll('main script').length"),
    ).toBe(0);
    const shown = await text(".mistakes");
    for (const hostile of HOSTILE) expect(shown).toContain(hostile);
    expect(page.complaints).toEqual([]);
    expect([...new Set(page.requests)]).toEqual([url]);
  });

  it("fits a telephone, and is dark where that is asked for", async () => {
    await page.size(390, 800);
    await page.goto(url);
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(390);
    const smallest = `Math.min(...[...document.querySelectorAll("svg text")].map((text) =>
      parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getScreenCTM().a))`;
    expect(await page.evaluate<number>(smallest)).toBeGreaterThan(10);
    const background = () => page.evaluate<string>("getComputedStyle(document.body).backgroundColor");
    await page.colors("light");
    expect(await background()).toBe("rgb(245, 246, 248)");
    await page.colors("dark");
    expect(await background()).toBe("rgb(17, 21, 28)");
  });

  it("has contrast enough in both colour schemes", async () => {
    for (const scheme of ["light", "dark"] as const) {
      await page.colors(scheme);
      await page.goto(url);
      expect(await page.evaluate<string[]>(LOW_CONTRAST), scheme).toEqual([]);
    }
  });
});

/** Texts and lines with less contrast to their card than WCAG asks for: 4.5 for text, 3 for lines that mean something. */
const LOW_CONTRAST = `(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const card = light(getComputedStyle(document.querySelector(".card")).backgroundColor);
  const check = (selector, property, least) => [...document.querySelectorAll(selector)]
    .filter((one) => ratio(light(getComputedStyle(one)[property]), card) < least)
    .map((one) => one.outerHTML.slice(0, 80));
  return [
    ...check("dt, dd, th, td, p, figcaption, label, .key", "color", 4.5),
    ...check("svg text", "fill", 4.5),
    ...check("path.line:not(.raw), path.bars", "stroke", 3),
  ];
})()`;
