import path from "node:path";
import { PeftTrainError } from "../../errors.js";
import type { TrainOptions } from "../options/options.js";

/** @throws USAGE where two tenants would write into one folder, or one into the other's. */
export function requireApart(tenants: Readonly<Record<string, TrainOptions>>): void {
  const folders = Object.entries(tenants).flatMap(([tenant, { outputDir }]): [string, string][] =>
    typeof outputDir === "string" ? [[tenant, path.resolve(outputDir)]] : [],
  );
  for (const [i, [tenant, folder]] of folders.entries()) {
    for (const [other, earlier] of folders.slice(0, i)) {
      if (folder !== earlier && !isInside(folder, earlier) && !isInside(earlier, folder)) continue;
      throw new PeftTrainError("USAGE", `${tenant} writes to ${folder}, and ${other} to ${earlier}`, {
        hint: "Give every tenant an --output_dir of its own.",
      });
    }
  }
}

function isInside(folder: string, other: string): boolean {
  return folder.startsWith(other + path.sep);
}
