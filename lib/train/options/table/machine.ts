import type { OptionDefinition } from "./definition.js";

/** What a run computes on, and in which precision. */
export const MACHINE_OPTIONS = {
  device: {
    group: "Machine",
    type: "string",
    default: "cpu",
    pattern: /^(cpu|cuda(:\d{1,3})?)$/,
    expected: "cpu, cuda or cuda:N",
    doc: "where to run: cpu, cuda or cuda:N",
  },
  num_threads: {
    group: "Machine",
    type: "integer",
    default: 0,
    min: 0,
    max: 1024,
    doc: "threads of the matrix products; 0: one a physical core",
  },
  mixed_precision: {
    group: "Machine",
    type: "string",
    default: "no",
    choices: ["no", "fp16", "bf16", "fp8"],
    doc: "operands of the frozen products in 16 bits, sums and adapter in float32; fp16 with a loss scale. fp8 is not there yet",
  },
} as const satisfies Record<string, OptionDefinition>;
