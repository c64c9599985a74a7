import path from "node:path";
import { isMap, isNode, isScalar, YAMLMap } from "yaml";
import { PeftTrainError } from "../../errors.js";
import type { OptionName } from "../../train/options/option-table.js";
import { flagLabel } from "../../train/options/option-value.js";
import { type ResolvedTrainOptions, resolveOptions } from "../../train/options/options.js";
import { type ConfigFile, optionsIn, readMap } from "../config-file.js";

const TENANTS = "tenants";

/**
 * The options of every tenant of a YAML or JSON file: those at its top hold for all, those below `tenants` and a name for that one,
 * and flags for all before either. Without an output_dir of its own a tenant writes to a folder of its name in the shared one.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE; USAGE with file, line and tenant; NOT_YET_AVAILABLE
 */
export function readTenants(
  file: string,
  flags: Partial<Record<OptionName, unknown>>,
): Record<string, ResolvedTrainOptions> {
  const { contents, at } = readMap(file);
  const own = contents.get(TENANTS, true) as unknown;
  if (!isMap(own) || own.items.length === 0) {
    const place = isNode(own) ? at(own.range?.[0] ?? 0) : file;
    throw new PeftTrainError(
      "USAGE",
      `${place}: expected ${TENANTS}: with a name and its options for each, found none`,
      {
        hint: "As in: tenants: {support: {dataset_name: support.csv}, sales: {dataset_name: sales.csv}}",
      },
    );
  }
  const rest = new YAMLMap();
  rest.range = contents.range ?? null;
  rest.items = contents.items.filter(({ key }) => !isScalar(key) || key.value !== TENANTS);
  const shared = optionsIn(rest, at);
  return Object.fromEntries(
    own.items.map(({ key, value }) => {
      const tenant = isScalar(key) ? String(key.value) : String(key);
      const place = at(isNode(key) ? (key.range?.[0] ?? 0) : 0);
      if (value !== null && !isMap(value) && !(isScalar(value) && value.value === null)) {
        throw new PeftTrainError("USAGE", `${place}: ${tenant}: expected names of options and their values`);
      }
      const options = isMap(value) ? optionsIn(value, at) : { values: {}, place: () => place };
      return [tenant, resolveTenant(tenant, place, shared, options, flags)];
    }),
  );
}

function resolveTenant(
  tenant: string,
  place: string,
  shared: ConfigFile,
  own: ConfigFile,
  flags: Partial<Record<OptionName, unknown>>,
): ResolvedTrainOptions {
  const values = { ...shared.values, ...own.values, ...flags };
  const parent =
    flags.output_dir ?? (own.values.output_dir === undefined ? shared.values.output_dir : undefined);
  if (typeof parent === "string") values.output_dir = path.join(parent, folderName(tenant, place));
  return resolveOptions(values, (name) => {
    if (name in flags) return flagLabel(name);
    if (name in own.values) return `${own.place(name)}: ${name}`;
    return name in shared.values ? `${shared.place(name)}: ${name}` : `${place}: ${tenant}: ${name}`;
  });
}

/** @throws USAGE for a name that is no name of one folder. */
function folderName(tenant: string, place: string): string {
  if (tenant !== "" && tenant !== "." && tenant !== ".." && !/[/\\\0]/.test(tenant)) return tenant;
  throw new PeftTrainError("USAGE", `${place}: ${JSON.stringify(tenant)} is no name for a folder`, {
    hint: "Give that tenant an output_dir of its own, or another name.",
  });
}
