import { join } from "node:path";
import { train } from "../dist/index.js";

/** Trains adapters of three steps each, far enough apart that each gives other vectors; a Map of name to folder. */
export async function makeAdapters(model, pairs, folder, names) {
  const folders = new Map();
  for (const [i, name] of names.entries()) {
    const outputDir = join(folder, name);
    await train({
      modelNameOrPath: model,
      datasetName: pairs,
      outputDir,
      maxTrainSteps: 3,
      learningRate: 0.02,
      seed: i + 1,
      prefix: `${name}: `,
      report: false,
    }).result;
    folders.set(name, outputDir);
  }
  return folders;
}
