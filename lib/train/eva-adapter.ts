import path from "node:path";
import { formatAdapterConfig, parseAdapterConfig } from "../adapter/config.js";
import { beginWithEva, EVA_RHO, evaSites, type InputDirections, keyOf } from "../adapter/eva.js";
import { CONFIG_FILE, missingConfig } from "../adapter/folder.js";
import type { LoraConfig } from "../adapter/lora-config.js";
import { resolveTargets } from "../adapter/targets.js";
import { encodingMicroBatch, gatherTexts } from "../embed.js";
import { PeftTrainError } from "../errors.js";
import { readJsonObject } from "../model/json-file.js";
import type { Checkpoint } from "./checkpoint/checkpoint.js";
import { distinctTexts } from "./evaluation/evaluate.js";
import type { PlannedAdapter } from "./planned-adapter.js";
import type { Plan, TrainData } from "./preparation.js";
import { type BaseRun, drawTexts } from "./step/base-texts.js";

/** Texts whose tokens are looked at, at most: principal components of some ten thousand tokens no longer turn. */
const EVA_TEXTS = 1024;

/**
 * The plan with the adapter that `init_lora_weights=eva` makes of the one that was asked for: ranks and A come from the training texts;
 * those of a run that goes on, from its checkpoint. Any other plan as it is.
 * @throws ABORTED when it was stopped.
 */
export async function withEva(
  plan: Plan,
  { training }: TrainData,
  run: BaseRun,
  resume: Checkpoint | undefined,
): Promise<Plan> {
  const { adapter, options } = plan;
  if (adapter?.lora.initLoraWeights !== "eva") return plan;
  if (resume !== undefined) return { ...plan, adapter: await storedAdapter(plan, resume) };
  const { hiddenSize, intermediateSize } = plan.shape;
  const sites = evaSites(adapter.spec.modules, options.evaRho ?? EVA_RHO, ({ matrix }) =>
    matrix === "output" ? intermediateSize : hiddenSize,
  );
  const { texts } = distinctTexts(training, 0, training.offsets.length - 1);
  const some = drawTexts(texts, EVA_TEXTS, options.seed);
  const count = some.offsets.length - 1;
  const batch = gatherTexts(
    some,
    Int32Array.from({ length: count }, (_, i) => i),
  );
  run.onProgress(0, count);
  const found = await run.native.inputComponents(batch, sites, encodingMicroBatch(run.native));
  run.onProgress(count, count);
  if (run.stopped())
    throw new PeftTrainError("ABORTED", "stopped before training began; nothing was written");
  const directions = new Map<string, InputDirections>(
    sites.map((site) => {
      const key = keyOf(site);
      const [components, ratios] = [found[`${key}.components`], found[`${key}.ratios`]];
      return [key, { components: components as Float32Array, ratios: ratios as Float32Array }];
    }),
  );
  const { lora, a } = beginWithEva(adapter.lora, adapter.spec.modules, directions);
  const planned = adapterOf(lora, plan);
  return { ...plan, adapter: { ...planned, spec: { ...planned.spec, a } } };
}

async function storedAdapter(plan: Plan, { folder }: Checkpoint): Promise<PlannedAdapter> {
  const file = path.join(folder, CONFIG_FILE);
  const json = await readJsonObject(file);
  if (json === undefined) throw await missingConfig(folder);
  return adapterOf({ ...parseAdapterConfig(json, file).lora, initLoraWeights: "eva" }, plan);
}

function adapterOf(lora: LoraConfig, { model }: Plan): PlannedAdapter {
  const spec = resolveTargets(lora, model);
  return { lora, spec, config: formatAdapterConfig(lora, spec, model.name, model.hub?.revision) };
}
