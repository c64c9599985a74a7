import { dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of package.json. */
export const PACKAGE_ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

/** What compiles the addon: in a checkout, or in the folder of an installed package, which has no tools for it yet. */
export const BUILD_COMMAND = buildCommand(PACKAGE_ROOT);

export function buildCommand(root: string): string {
  const installed = root.split(sep).includes("node_modules");
  return installed
    ? `cd ${root} && npm install --include=dev --ignore-scripts && npm run build`
    : "npm run build";
}
