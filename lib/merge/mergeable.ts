import { asPlainLora } from "../adapter/config.js";
import type { LoraFactors } from "../adapter/factors.js";
import { type AdapterFolder, CONFIG_FILE, WEIGHTS_FILE } from "../adapter/folder.js";
import { splitsBase } from "../adapter/lora-config.js";
import { readStoredAdapter, type StoredAdapter, tensorName } from "../adapter/stored-adapter.js";
import type { LoadOptions } from "../encoder-options.js";
import { PeftTrainError } from "../errors.js";
import type { ModelFolder } from "../model/folder.js";
import { chooseStorage } from "../model/storage.js";
import { loadEngine } from "../native/load.js";
import { quantizeRequest } from "../train/options/quantize-settings.js";

/**
 * Reads an adapter for the weights of its base. One of PiSSA or OLoRA as PEFT saves it runs over W - s B0 A0: the engine finds A0 and
 * B0 in the base, as PEFT does, and what is given back is plain LoRA over W, [A; A0] and [B, -B0].
 * @param folder Of the adapter, opened for `model`.
 * @throws ADAPTER_MISMATCH where its file and its configuration disagree, and as for reading an adapter and loading both.
 */
export async function readMergeable(
  folder: AdapterFolder,
  model: ModelFolder,
  options: Pick<LoadOptions, "engine" | "threads"> = {},
): Promise<StoredAdapter> {
  const stored = await readStoredAdapter(folder.path, {}, "any");
  requireWhole(stored, folder);
  if (!splitsBase(folder.lora.initLoraWeights)) return stored;
  const storage = chooseStorage(quantizeRequest(undefined, undefined), model);
  const engine = await (options.engine ?? loadEngine)();
  const native = await engine.open({
    weightsPath: model.weightsPath,
    shape: model.shape,
    pooling: model.pooling,
    device: "cpu",
    threads: options.threads ?? 0,
    ...(storage && { storage }),
  });
  try {
    await native.loadAdapter(folder.weightsPath, folder.spec);
    return overBase(stored, await native.adapterWeights());
  } finally {
    await native.close();
  }
}

/** @param weights As they are saved, with what was taken from the base as their second half. */
function overBase(stored: StoredAdapter, weights: Readonly<Record<string, Float32Array>>): StoredAdapter {
  const numbers = (key: string): Float64Array =>
    Float64Array.from(weights[tensorName(key, "plain")] as Float32Array);
  const modules = [...stored.modules].map(([name, factors]): [string, LoraFactors] => {
    const [a, b] = [numbers(`${name}.lora_A.weight`), numbers(`${name}.lora_B.weight`)];
    return [name, { ...factors, rank: 2 * factors.rank, a, b }];
  });
  const config = { ...stored.config, lora: asPlainLora(stored.config.lora) };
  return { ...stored, config, modules: new Map(modules) };
}

/** What the configuration asks for must be there, and nothing else: merging takes what there is. */
function requireWhole({ modules, own }: StoredAdapter, { path, spec }: AdapterFolder): void {
  const wanted = new Set(
    [spec.modules, spec.parameters ?? []].flatMap((named) => named.map(({ name }) => name)),
  );
  const found = new Set([...modules.keys(), ...own.keys()]);
  const missing = [...wanted].find((name) => !found.has(name));
  const surplus = [...found].find((name) => !wanted.has(name));
  if (missing === undefined && surplus === undefined) return;
  throw new PeftTrainError(
    "ADAPTER_MISMATCH",
    `${path}: ${CONFIG_FILE} asks for ${missing ?? `no ${surplus}`}, which ${WEIGHTS_FILE} ${missing === undefined ? "holds" : "does not hold"}`,
    {
      hint: `${CONFIG_FILE} and ${WEIGHTS_FILE} do not belong together, or the adapter is for another model.`,
    },
  );
}
