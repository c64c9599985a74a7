import type { ModelShape } from "../native/types.js";

/** `linear` can carry LoRA here; `other` are modules that a pattern may hit and LoRA cannot wrap. */
export type ModuleKind = "linear" | "other";

/**
 * Every module of transformers' BertModel by name, in the order of `named_modules()`: what PEFT matches
 * target_modules against.
 */
export function bertModules(
  shape: Pick<ModelShape, "numLayers">,
  hasPooler: boolean,
): Map<string, ModuleKind> {
  const modules = new Map<string, ModuleKind>();
  const add = (names: readonly string[], prefix = ""): void => {
    for (const name of names) {
      modules.set(prefix + name, LINEAR.test(name) ? "linear" : "other");
    }
  };
  add(EMBEDDINGS);
  add(["encoder", "encoder.layer"]);
  for (let i = 0; i < shape.numLayers; i++) {
    modules.set(`encoder.layer.${i}`, "other");
    add(LAYER, `encoder.layer.${i}.`);
  }
  if (hasPooler) add(POOLER);
  return modules;
}

/** Names of a module's own parameters, not those of modules inside it. */
export function parametersOf(module: string): readonly ("weight" | "bias")[] {
  if (LINEAR.test(module) || module.endsWith("LayerNorm")) return ["weight", "bias"];
  return /_embeddings$/.test(module) ? ["weight"] : [];
}

const LINEAR = /(^|\.)(query|key|value|dense)$/;
const EMBEDDINGS = [
  "embeddings",
  "embeddings.word_embeddings",
  "embeddings.position_embeddings",
  "embeddings.token_type_embeddings",
  "embeddings.LayerNorm",
  "embeddings.dropout",
];
const LAYER = [
  "attention",
  "attention.self",
  "attention.self.query",
  "attention.self.key",
  "attention.self.value",
  "attention.self.dropout",
  "attention.output",
  "attention.output.dense",
  "attention.output.LayerNorm",
  "attention.output.dropout",
  "intermediate",
  "intermediate.dense",
  "intermediate.intermediate_act_fn",
  "output",
  "output.dense",
  "output.LayerNorm",
  "output.dropout",
];
const POOLER = ["pooler", "pooler.dense", "pooler.activation"];
