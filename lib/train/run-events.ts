import type { NativeEncoder } from "../native/types.js";
import type { MemoryEvent, StartedEvent } from "./events.js";
import type { Plan, TrainData } from "./preparation.js";
import type { RunLength } from "./run-length.js";

interface Run {
  plan: Plan;
  data: TrainData;
  native: NativeEncoder;
}

export function startedEvent({ plan, data, native }: Run, length: RunLength): StartedEvent {
  const { device, threads, baseParameters, trainableParameters } = native.info();
  const { epochs, stepsPerEpoch, totalSteps } = length;
  return {
    event: "started",
    model: plan.model.name,
    device,
    threads,
    trainPairs: data.training.count,
    evalPairs: data.evaluation?.count ?? 0,
    epochs,
    stepsPerEpoch,
    totalSteps,
    trainableParameters,
    allParameters: plan.adapter === undefined ? baseParameters : baseParameters + trainableParameters,
    adaptedModules: plan.adapter?.spec.modules.length ?? 0,
  };
}

export function memoryEvent({ plan, native }: Run, microBatchTokens: number): MemoryEvent {
  const memory = native.memory(microBatchTokens, true);
  const frozen = memory.linear + memory.embeddings + memory.other;
  const trained = memory.adapter + memory.optimizer + memory.activations;
  return {
    event: "memory",
    storage: plan.storage ?? null,
    plan: memory,
    peak: frozen + trained,
    float32Peak: memory.float32Weights + trained,
  };
}
