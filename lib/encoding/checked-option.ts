import type { OptionName } from "../train/options/option-table.js";
import { parseOption } from "../train/options/option-value.js";

/** The command line's range and words for the same option. @throws USAGE */
export function checkedOption<T>(option: OptionName, name: string, value: T | undefined): T | undefined {
  return value === undefined ? undefined : (parseOption(option, value, () => name) as T);
}
