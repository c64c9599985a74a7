import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { learningRateAt, type ScheduleOptions } from "../../../lib/train/schedule.js";

/** Written by make_golden.py beside it, from transformers' get_scheduler. */
const golden = JSON.parse(
  readFileSync(new URL("../../fixtures/schedules/golden.json", import.meta.url), "utf8"),
) as { cases: (ScheduleOptions & { rates: number[] })[] };

describe("the learning rate of every step is transformers'", () => {
  for (const { rates, ...options } of golden.cases) {
    it(`${options.type}, warm-up ${options.warmupSteps}, ${options.totalSteps} steps`, () => {
      expect(rates).toHaveLength(options.totalSteps);
      for (const [step, expected] of rates.entries()) {
        // Both compute in float64; only the order of operations differs.
        expect(Math.abs(learningRateAt(step, options) - expected), `step ${step}`).toBeLessThan(1e-17);
      }
    });
  }
});
