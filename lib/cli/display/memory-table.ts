import { describeStorage } from "../../model/storage.js";
import type { MemoryEvent } from "../../train/events.js";
import { bold, size, table } from "./terminal.js";

/** From here on memory is worth a look where nothing was asked of it. */
const MUCH_MEMORY = 512 * 1024 * 1024;

export function isInformative({ storage, peak }: MemoryEvent): boolean {
  return storage !== null || peak >= MUCH_MEMORY;
}

/** What the run takes at its peak; with another storage than float32, what that would have taken too. */
export function memoryTable({ storage, plan, peak, float32Peak }: MemoryEvent, usePeft: boolean): string {
  const held = plan.linear + plan.embeddings + plan.other;
  const rows: [string, number, number][] = [
    ...(usePeft
      ? ([
          ["base model, frozen", held, plan.float32Weights],
          ["  of it embeddings", plan.embeddings, Number.NaN],
          ["adapter and its gradient", plan.adapter, plan.adapter],
        ] satisfies [string, number, number][])
      : ([
          ["weights and their gradients", plan.adapter, plan.adapter],
          ["matrices, packed for products", held, plan.float32Weights],
        ] satisfies [string, number, number][])),
    ["Adam's moments", plan.optimizer, plan.optimizer],
    ["activations", plan.activations, plan.activations],
    [bold("peak, beside libtorch"), peak, float32Peak],
  ];
  const shown = rows.map(([what, bytes, float32]) => [
    what,
    size(bytes),
    ...(storage === null ? [] : [Number.isNaN(float32) ? "" : size(float32)]),
  ]);
  const head = ["Memory", describeStorage(storage ?? undefined), ...(storage === null ? [] : ["float32"])];
  return table(head, shown, { right: [1, 2] });
}
