import { PeftTrainError } from "../../errors.js";
import type { AdapterDescription } from "../../inspect/adapter.js";
import { type Inspection, inspect } from "../../inspect/inspect.js";
import type { ModelDescription } from "../../inspect/model.js";
import type { TensorsDescription } from "../../inspect/tensors.js";
import { describeStorage } from "../../model/storage.js";
import type { WeightFormat } from "../../native/types.js";
import { jsonLine } from "../../train/json-line.js";
import { count, size, table } from "../display/terminal.js";
import { type FlagValues, textFlag } from "../flags.js";

const KINDS: Record<Inspection["kind"], string> = {
  model: "a model",
  adapter: "a LoRA adapter",
  checkpoint: "a checkpoint of a run: an adapter and what the run needs to go on",
  onnx: "a model in ONNX, for onnxruntime and transformers.js",
  tensors: "a file of tensors",
};

/** `peft-train inspect` */
export async function runInspect(args: FlagValues): Promise<void> {
  const given = textFlag(args, "path");
  if (given === undefined) {
    throw new PeftTrainError("USAGE", "the path of a folder or a .safetensors file is required", {
      hint: "For example: npx peft-train inspect models/e5-small-v2",
    });
  }
  const found = await inspect(given);
  if (args.json === true) {
    const { weights, ...rest } = found;
    const { tensors, ...file } = weights ?? { tensors: [] };
    const listed = args.tensors === true ? { ...file, tensors } : { ...file, tensors: tensors.length };
    process.stdout.write(`${jsonLine({ ...rest, weights: weights && listed })}\n`);
  } else process.stdout.write(`${report(found, args.tensors === true)}\n`);
}

function report(
  { kind, path, model, adapter, checkpoint, weights, problem }: Inspection,
  all: boolean,
): string {
  const rows = [
    ...(model === undefined ? [] : modelRows(model)),
    ...(adapter === undefined ? [] : adapterRows(adapter)),
    ...(checkpoint === undefined
      ? []
      : [["stands at", `optimiser step ${count(checkpoint.step)}, ${checkpoint.epochsEnded} epochs ended`]]),
    ...(weights === undefined ? [] : weightRows(weights)),
  ];
  return [
    `${path}: ${kind === "model" && model?.quantized ? "a quantised model" : KINDS[kind]}`,
    ...(rows.length === 0 ? [] : [table(["What", "Found"], rows)]),
    ...(model === undefined || model.memory.length === 0 ? [] : [memoryTable(model)]),
    ...(all && weights !== undefined ? [tensorTable(weights)] : []),
    ...(problem === undefined ? [] : [`not taken by this package (${problem.code}): ${problem.message}`]),
    ...(problem?.hint === undefined ? [] : [problem.hint]),
  ].join("\n");
}

function modelRows(model: ModelDescription): string[][] {
  const { shape, quantized, prompts } = model;
  const rows = [["architecture", [model.modelType ?? "none named", ...model.architectures].join(", ")]];
  if (shape !== undefined) {
    rows.push(
      ["layers", `${shape.numLayers}, of ${shape.numHeads} heads`],
      ["hidden size", `${shape.hiddenSize}, ${shape.intermediateSize} between`],
      ["vocabulary", `${count(shape.vocabSize)} tokens, ${shape.maxPositions} positions`],
      ["pooling", `${model.pooling}${model.normalize ? ", then length 1" : ""}`],
      ["length", `${model.defaultMaxLength} tokens of a text that is encoded, unless it is said`],
      ["pooler", model.pooler ? "yes, not used by mean and cls pooling" : "none"],
      ["held as", quantized === undefined ? "plain numbers" : describeStorage(quantized)],
    );
  }
  if (Object.keys(prompts).length > 0) rows.push(["prompts", JSON.stringify(prompts)]);
  return rows;
}

function adapterRows(adapter: AdapterDescription): string[][] {
  const { record, modules, parameters, layout, memory } = adapter;
  const rows = [
    ["type", [adapter.peftType ?? "not said", ...adapter.variants].join(", ")],
    ["base model", adapter.baseModel ?? record?.baseModel ?? "not said"],
    ["r, alpha", `${adapter.r ?? 8}, ${adapter.loraAlpha ?? 8}`],
    ["targets", [adapter.targetModules ?? "query, value (PEFT's default)"].flat().join(", ")],
  ];
  if (modules !== undefined) {
    rows.push(
      [
        "modules",
        `${modules}, of rank ${adapter.ranks.join(", ")}, scale ${adapter.scales.map(short).join(", ")}`,
      ],
      ["parameters", count(parameters as number)],
      ["names of tensors", layout === "wrapped" ? "of a wrapped model" : "PEFT's for an encoder"],
      ["once loaded", `${size(memory as number)} beside the base model, gradients included`],
    );
  }
  if (record !== undefined) {
    rows.push(
      [
        "prefixes",
        [record.question1Prefix, record.question2Prefix].map((prefix) => JSON.stringify(prefix)).join(", "),
      ],
      ["pooling, length", `${record.pooling}, ${record.maxLength} tokens`],
      ["trained", `${count(record.step)} steps, ${record.epoch} epochs, seed ${record.seed}`],
      ["base weights", `SHA-256 ${record.base.weights}`],
    );
  }
  if (adapter.runConfig) rows.push(["run", "train_config.json repeats it (--config)"]);
  return rows;
}

function weightRows({ file, bytes, elements, types, tensors }: TensorsDescription): string[][] {
  const kinds = types.map(({ dtype, bytes: share }) => `${dtype} ${size(share)}`);
  return [
    ["weights", file],
    ["tensors", `${tensors.length}, ${count(elements)} elements, ${size(bytes)}`],
    ["types", kinds.join(", ")],
  ];
}

/** Flags that hold plain weights so. */
const HOLDING: Partial<Record<WeightFormat, string>> = {
  float16: "--torch_dtype float16 (bfloat16)",
  int8: "--load_in_8bit",
  nf4: "--load_in_4bit",
};

/** Of an encoder that only encodes; a run has a table of its own, for what it takes depends on its options. */
function memoryTable({ memory, quantized }: ModelDescription): string {
  const rows = memory.map(({ format, bytes }) => {
    const flag = quantized === undefined ? (HOLDING[format] ?? "") : "as it is";
    return [format, flag, size(bytes)];
  });
  return table(["Frozen weights once loaded", "Flag", "Bytes"], rows, { right: [2] });
}

function tensorTable({ tensors }: TensorsDescription): string {
  const rows = tensors.map(({ name, dtype, shape, bytes }) => [
    name,
    dtype,
    `[${shape.join(", ")}]`,
    size(bytes),
  ]);
  return table(["Tensor", "Type", "Shape", "Size"], rows, { right: [3] });
}

function short(value: number): string {
  return String(Number(value.toPrecision(6)));
}
