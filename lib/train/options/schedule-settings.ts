import { PeftTrainError } from "../../errors.js";
import type { ScheduleOptions, ScheduleType } from "../step/schedule.js";
import type { Label } from "./option-value.js";
import type { ResolvedTrainOptions } from "./options.js";

/** Settings of the schedules, named as the arguments of transformers' functions. */
export interface ScheduleSettings {
  num_cycles?: number;
  lr_end?: number;
  power?: number;
  timescale?: number;
  num_decay_steps?: number;
  num_stable_steps?: number;
  min_lr_ratio?: number;
  warmup_type?: Shape;
  decay_type?: Shape;
}

const SHAPES = ["linear", "cosine", "1-sqrt"] as const;
/** How a rate rises or falls. */
export type Shape = (typeof SHAPES)[number];

interface Rule {
  expected: string;
  ok: (value: unknown) => boolean;
}

const number = (expected: string, ok: (value: number) => boolean): Rule => ({
  expected,
  ok: (value) => typeof value === "number" && Number.isFinite(value) && ok(value),
});
const COUNT = number("a whole number of at least 0", (value) => Number.isSafeInteger(value) && value >= 0);
const POSITIVE = number("a whole number of at least 1", (value) => Number.isSafeInteger(value) && value > 0);
const CYCLES = number("a number above 0", (value) => value > 0);
const SHAPE: Rule = {
  expected: `one of ${SHAPES.join(", ")}`,
  ok: (value) => SHAPES.includes(value as Shape),
};

const RULES: Record<ScheduleType, Partial<Record<keyof ScheduleSettings, Rule>>> = {
  linear: {},
  cosine: { num_cycles: CYCLES },
  cosine_with_restarts: { num_cycles: POSITIVE },
  polynomial: { lr_end: number("a number of at least 0", (value) => value >= 0), power: CYCLES },
  constant: {},
  constant_with_warmup: {},
  inverse_sqrt: { timescale: POSITIVE },
  warmup_stable_decay: {
    num_decay_steps: COUNT,
    num_stable_steps: COUNT,
    min_lr_ratio: number("a number of at least 0 and at most 1", (value) => value >= 0 && value <= 1),
    num_cycles: CYCLES,
    warmup_type: SHAPE,
    decay_type: SHAPE,
  },
};

/**
 * Holds the settings of a schedule against what its type takes.
 * @throws USAGE naming the setting, its value and what is allowed.
 */
export function checkScheduleSettings(options: ResolvedTrainOptions, label: Label): void {
  const { lrSchedulerType: type, lrSchedulerKwargs, learningRate } = options;
  const flag = label("lr_scheduler_kwargs");
  const settings = lrSchedulerKwargs ?? {};
  const rules = RULES[type];
  const names = Object.keys(rules);
  for (const [name, value] of Object.entries(settings)) {
    const rule = rules[name as keyof ScheduleSettings];
    if (rule === undefined) {
      const takes = names.length === 0 ? "has no settings" : `takes ${names.join(", ")}`;
      throw new PeftTrainError("USAGE", `${flag}: ${type} ${takes}; found ${name}`);
    }
    if (!rule.ok(value)) {
      const found = JSON.stringify(value);
      throw new PeftTrainError("USAGE", `${flag}: expected ${name} to be ${rule.expected}, found ${found}`);
    }
  }
  if (type === "warmup_stable_decay" && settings.num_decay_steps === undefined) {
    throw new PeftTrainError("USAGE", `${flag} needs num_decay_steps for ${type}`, {
      hint: `For example: ${flag}='{"num_decay_steps": 100}'`,
    });
  }
  if (type === "polynomial" && (settings.lr_end ?? POLYNOMIAL_END) >= learningRate) {
    throw new PeftTrainError(
      "USAGE",
      `${flag}: lr_end ${settings.lr_end ?? POLYNOMIAL_END} is not below ${label("learning_rate")}=${learningRate}`,
    );
  }
}

/** Where `polynomial` ends by itself. */
export const POLYNOMIAL_END = 1e-7;

/** The schedule of a run. As in transformers a number of warm-up steps comes before a ratio. */
export function scheduleOf(options: ResolvedTrainOptions, totalSteps: number): ScheduleOptions {
  return {
    type: options.lrSchedulerType,
    learningRate: options.learningRate,
    warmupSteps: options.numWarmupSteps || Math.ceil(totalSteps * options.warmupRatio),
    totalSteps,
    settings: options.lrSchedulerKwargs ?? {},
  };
}

/** Settings as JSON text or as an object; undefined where they are neither. */
export function parseSettings(value: unknown): ScheduleSettings | undefined {
  return parseJsonObject(value) as ScheduleSettings | undefined;
}

/** An object, or JSON text of one; undefined for anything else. */
export function parseJsonObject(value: unknown): Record<string, unknown> | undefined {
  let parsed = value;
  if (typeof value === "string") {
    try {
      parsed = JSON.parse(value);
    } catch {
      return undefined;
    }
  }
  const isObject = typeof parsed === "object" && parsed !== null && !Array.isArray(parsed);
  return isObject ? (parsed as Record<string, unknown>) : undefined;
}
