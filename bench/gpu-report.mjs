import { count, figure, markdownTable, mebibytes } from "./table.mjs";

/** What bench:gpu measured, as Markdown. */
export function gpuMarkdown({ date, gpu, machine, data, model, options, sections }) {
  const { kernels, training, encoding } = sections;
  const epochs = options.quick ? "a few steps" : `${options.epochs} epochs`;
  const about = [
    `${date}, ${gpu} (compute capability ${kernels.computeCapability}); ${machine.cpu}, ${machine.physicalCores} cores; ${machine.system}.`,
    `peft-train ${machine.package}${machine.commit ? ` (${machine.commit})` : ""}, Node ${machine.node}, libtorch ${machine.libtorch}.`,
    `Kernels were ready after ${figure(kernels.readySeconds)} s.`,
  ];
  return [
    about.join(" "),
    "### Training",
    `${model}, ${data}, ${epochs}, batch ${options.batch}, at most ${options.max_length} tokens, seed ${options.seed}. Seconds are those of the whole command.`,
    markdownTable(
      ["frozen weights", "s", "pairs", "pairs/s, steady", "first step after, s", "ROC AUC", "peak RSS, MiB"],
      training.map((row) => [
        row.name,
        figure(row.seconds),
        count(row.pairs),
        figure(row.pairsPerSecond),
        figure(row.firstStep),
        row.rocAuc?.toFixed(4),
        mebibytes(row.peakBytes),
      ]),
    ),
    "### Encoding",
    `${model}, ${count(encoding[0].texts)} texts, tokenisation included.`,
    markdownTable(
      ["frozen weights", "texts/s", "one text, ms"],
      encoding.map((row) => [row.name, figure(row.textsPerSecond), figure(row.milliseconds)]),
    ),
    "### Kernels",
    "Microseconds of one call; plain ATen calls are what runs where there is no kernel.",
    markdownTable(
      ["", "shape", "kernel", "plain ATen", "times faster"],
      kernels.rows.map((row) => [
        row.name,
        row.shape,
        figure(row.microseconds),
        figure(row.aten),
        row.microseconds === undefined ? "" : figure(row.aten / row.microseconds),
      ]),
    ),
  ].join("\n\n");
}
