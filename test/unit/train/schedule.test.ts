import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { resolveOptions } from "../../../lib/train/options/options.js";
import { scheduleOf } from "../../../lib/train/options/schedule-settings.js";
import { learningRateAt, type ScheduleOptions } from "../../../lib/train/step/schedule.js";

/** Written by make_golden.py beside it, from transformers' get_scheduler. */
const golden = JSON.parse(
  readFileSync(new URL("../../fixtures/schedules/golden.json", import.meta.url), "utf8"),
) as { cases: (ScheduleOptions & { rates: number[] })[] };

describe("the learning rate of every step is transformers'", () => {
  for (const { rates, ...options } of golden.cases) {
    it(`${options.type} ${JSON.stringify(options.settings)}, warm-up ${options.warmupSteps}, ${options.totalSteps} steps`, () => {
      expect(rates).toHaveLength(options.totalSteps);
      for (const [step, expected] of rates.entries()) {
        // Both compute in float64; only the order of operations differs.
        expect(Math.abs(learningRateAt(step, options) - expected), `step ${step}`).toBeLessThan(1e-17);
      }
    });
  }
});

const REQUIRED = { model_name_or_path: "m", dataset_name: "d.csv", output_dir: "out" };

describe("settings of a schedule", () => {
  it("are read as JSON, and warm-up as a number of steps or as a part of them", () => {
    const options = resolveOptions({
      ...REQUIRED,
      lr_scheduler_type: "cosine",
      lr_scheduler_kwargs: '{"num_cycles": 1.5}',
      warmup_ratio: "0.1",
    });
    expect(scheduleOf(options, 251)).toEqual({
      type: "cosine",
      learningRate: 5e-4,
      warmupSteps: 26,
      totalSteps: 251,
      settings: { num_cycles: 1.5 },
    });
    expect(scheduleOf({ ...options, numWarmupSteps: 7 }, 251).warmupSteps).toBe(7);
  });

  for (const [type, settings, message] of [
    ["linear", { power: 2 }, "linear has no settings; found power"],
    ["cosine", { power: 2 }, "cosine takes num_cycles; found power"],
    ["cosine", { num_cycles: "2" }, 'expected num_cycles to be a number above 0, found "2"'],
    ["cosine_with_restarts", { num_cycles: 1.5 }, "a whole number of at least 1, found 1.5"],
    ["polynomial", { lr_end: 1e-3 }, "lr_end 0.001 is not below --learning_rate=0.0005"],
    ["inverse_sqrt", { timescale: 0 }, "expected timescale to be a whole number of at least 1, found 0"],
    ["warmup_stable_decay", {}, "needs num_decay_steps for warmup_stable_decay"],
    [
      "warmup_stable_decay",
      { num_decay_steps: 1, decay_type: "exp" },
      'one of linear, cosine, 1-sqrt, found "exp"',
    ],
    [
      "warmup_stable_decay",
      { num_decay_steps: 1, min_lr_ratio: 2 },
      "expected min_lr_ratio to be a number of at least 0 and at most 1, found 2",
    ],
  ] as const) {
    it(`of ${type} are refused: ${message}`, () => {
      const given = { ...REQUIRED, lr_scheduler_type: type, lr_scheduler_kwargs: settings };
      expect(() => resolveOptions(given)).toThrow(
        expect.objectContaining({ code: "USAGE", message: expect.stringContaining(message) }),
      );
    });
  }
});
