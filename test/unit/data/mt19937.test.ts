import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { epochOrder, seedWords } from "../../../lib/data/batch.js";
import { MT19937 } from "../../../lib/data/mt19937.js";

interface Stream {
  seed: number | number[];
  words: number[];
  doubles: number[];
  later: number[];
  permutation20: number[];
  permutation1000: string;
}

const golden: {
  streams: Stream[];
  mask: { count: number; true: number; first: number[]; sha256: string };
  epoch: { first: number[]; sha256: string };
} = JSON.parse(readFileSync(path.join(import.meta.dirname, "../../fixtures/mt19937/golden.json"), "utf8"));

function sha256(values: ArrayBufferView): string {
  return createHash("sha256").update(new Uint8Array(values.buffer)).digest("hex");
}

describe.each(golden.streams)("numpy's RandomState($seed)", (stream) => {
  test("rand", () => {
    const generator = new MT19937(stream.seed);
    const doubles = Array.from({ length: 5000 }, () => generator.double());
    expect(doubles.slice(0, 10)).toEqual(stream.doubles);
    expect(doubles.slice(-3)).toEqual(stream.later);
  });

  test("32-bit words", () => {
    const generator = new MT19937(stream.seed);
    expect(Array.from({ length: 8 }, () => generator.uint32())).toEqual(stream.words);
  });

  test("permutation", () => {
    expect([...new MT19937(stream.seed).permutation(20)]).toEqual(stream.permutation20);
    expect(sha256(new MT19937(stream.seed).permutation(1000))).toBe(stream.permutation1000);
  });
});

test("the article's split: 91,218 rows give 73,011 and 18,207", () => {
  const generator = new MT19937(42);
  const mask = Uint8Array.from({ length: golden.mask.count }, () => (generator.double() < 0.8 ? 1 : 0));
  expect(mask.length).toBe(91_218);
  expect(mask.reduce((sum, bit) => sum + bit, 0)).toBe(73_011);
  expect(golden.mask.true).toBe(73_011);
  expect([...mask.subarray(0, 40)]).toEqual(golden.mask.first);
  expect(sha256(mask)).toBe(golden.mask.sha256);
});

describe("epochOrder", () => {
  test("is numpy's permutation of the seed and the epoch", () => {
    const order = epochOrder(73_011, 42, 3);
    expect([...order.subarray(0, 10)]).toEqual(golden.epoch.first);
    expect(sha256(order)).toBe(golden.epoch.sha256);
  });

  test("depends on seed and epoch alone, and holds every index once", () => {
    const orders = [
      epochOrder(100, 1, 0),
      epochOrder(100, 1, 1),
      epochOrder(100, 2, 0),
      epochOrder(100, 2 ** 32 + 1, 0),
    ];
    expect(new Set(orders.map((order) => order.join())).size).toBe(4);
    expect(epochOrder(100, 1, 1)).toEqual(orders[1]);
    for (const order of orders) expect([...order].sort((a, b) => a - b)).toEqual([...Array(100).keys()]);
  });

  test("no pair and one pair", () => {
    expect([...epochOrder(0, 1, 0)]).toEqual([]);
    expect([...epochOrder(1, 1, 0)]).toEqual([0]);
  });

  test("seeds up to 2^53 keep all their bits", () => {
    expect(seedWords(Number.MAX_SAFE_INTEGER)).toEqual([2 ** 32 - 1, 2 ** 21 - 1]);
  });
});
