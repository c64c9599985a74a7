// One probe in a process of its own: what crashes or hangs here is a line in the table.
import { addonPath, loadEngine } from "../native/load.js";
import { answerProbe } from "../native/probe.js";
import type { EngineInfo } from "../native/types.js";
import { trainOneStep } from "./one-step.js";
import { tokenizeOnce } from "./tokenize-once.js";

export type ProbeName = keyof typeof PROBES;

export interface LoadedEngine extends EngineInfo {
  seconds: number;
}

const PROBES = {
  addon: addonPath,
  tokenizer: tokenizeOnce,
  libtorch: (): LoadedEngine => {
    const startedAt = performance.now();
    const info = loadEngine().info();
    return { ...info, seconds: (performance.now() - startedAt) / 1000 };
  },
  train: trainOneStep,
};

const [name, argument = ""] = process.argv.slice(2);
await answerProbe(() => PROBES[name as ProbeName](argument));
