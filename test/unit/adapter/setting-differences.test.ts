import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import type { LoraConfig } from "../../../lib/adapter/lora-config.js";
import { settingDifferences } from "../../../lib/adapter/setting-differences.js";
import { readStoredAdapter, type StoredAdapter } from "../../../lib/adapter/stored-adapter.js";

const folder = fileURLToPath(new URL("../../fixtures/combine/adapters/first", import.meta.url));
const adapter = await readStoredAdapter(folder);

/** LoRA on query and value of two layers, with other settings. */
function having(lora: Partial<LoraConfig>, layout: StoredAdapter["layout"] = "plain"): StoredAdapter {
  return { ...adapter, layout, config: { ...adapter.config, lora: { ...adapter.config.lora, ...lora } } };
}

it.each(["rankPattern", "alphaPattern"] as const)(
  "the order of %s counts where it gives a module another value",
  (name) => {
    const differences = (
      x: Record<string, number>,
      y: Record<string, number>,
      layout?: StoredAdapter["layout"],
    ) => settingDifferences(having({ [name]: x }, layout), having({ [name]: y }, layout));
    expect(differences({ query: 2, value: 3 }, { value: 3, query: 2 })).toEqual([]);
    // Both match the query of layer 0; the first counts.
    const [wide, narrow] = [
      { query: 2, "0.attention.self.query": 3 },
      { "0.attention.self.query": 3, query: 2 },
    ];
    expect(differences(wide, narrow)).toEqual([[name, wide, narrow]]);
    expect(differences({ query: 2, ".*query": 2 }, { ".*query": 2, query: 2 })).toEqual([]);
    // Two patterns for one module that the adapter does not have.
    expect(differences({ key: 2, "self.key": 3 }, { "self.key": 3, key: 2 })).toEqual([]);
    // Inside a wrapper names begin otherwise.
    const [one, other] = [
      { "model.*query": 2, query: 3 },
      { query: 3, "model.*query": 2 },
    ];
    expect(differences(one, other)).toEqual([]);
    expect(differences(one, other, "wrapped")).toEqual([[name, one, other]]);
    expect(differences({ query: 2 }, { query: 3 })).toEqual([[name, { query: 2 }, { query: 3 }]]);
    expect(differences({ query: 2 }, {})).toEqual([[name, { query: 2 }, {}]]);
  },
);

it("lists that PEFT makes sets of are the same in any order", () => {
  const one = { targetModules: ["query", "value"], excludeModules: ["a", "b"], modulesToSave: ["c", "d"] };
  const other = { targetModules: ["value", "query"], excludeModules: ["b", "a"], modulesToSave: ["d", "c"] };
  const layers = (layersToTransform: number[]) => ({ layersToTransform, layersPattern: "layer" });
  expect(
    settingDifferences(having({ ...one, ...layers([1, 0]) }), having({ ...other, ...layers([0, 1]) })),
  ).toEqual([]);
  expect(settingDifferences(having(one), having({ ...one, layersPattern: ["layer"] }))).toEqual([
    ["layersPattern", null, ["layer"]],
  ]);
});
