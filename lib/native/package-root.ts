import { dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of package.json. */
export const PACKAGE_ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

/** What compiles the addon, in a checkout, or from the project that the package is installed in, which has no CMake.js yet. */
export const BUILD_COMMAND = buildCommand(PACKAGE_ROOT);

export function buildCommand(root: string): string {
  const installed = root.split(sep).includes("node_modules");
  return installed ? `npm install --no-save cmake-js@8 && npm run build --prefix ${root}` : "npm run build";
}
