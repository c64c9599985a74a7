import { basename, relative, resolve } from "node:path";
import { settingText } from "./search.mjs";
import { count, figure, markdownTable, mebibytes, spread } from "./table.mjs";

/** Everything that was measured, as Markdown. */
export function markdown(result, root) {
  const { machine, python, options, sections } = result;
  const where = [
    `${result.date}, ${machine.cpu}, ${machine.physicalCores} cores (${machine.logicalCores} logical), ${machine.memoryGiB} GiB`,
    machine.flags.join(" ") || "no vector flags known",
    `${machine.system}, load ${machine.loadAtStart} at the start${machine.others === undefined ? "" : `, ${percent(machine.others)} of the processors' time went to others`}`,
  ];
  const versions = Object.entries(python).map(([name, version]) => `${name} ${version}`);
  const parts = [
    `${where.join("; ")}. peft-train ${machine.package}${machine.commit ? ` (${machine.commit})` : ""}, Node ${machine.node}, libtorch ${machine.libtorch}; ${versions.join(", ")}. Seed ${options.seed}, ${rounds(options.rounds)}: median (least to greatest).`,
  ];
  const name = (path) => shown(path, root);
  if (sections.train) parts.push(training(sections.train, options, name));
  if (sections.encode) parts.push(encoding(sections.encode, options, name));
  if (sections.start) parts.push(start(sections.start, options));
  if (sections.scale) parts.push(scale(sections.scale, options));
  return parts.join("\n\n");
}

/** Where it lies in the repository, or its name: nobody else has the folders of this machine. */
export function shown(path, root) {
  const inside = relative(root, resolve(path));
  return inside.startsWith("..") ? basename(path) : inside;
}

const rounds = (number) => (number === 1 ? "one round" : `${number} rounds, the rows in turn`);
export const percent = (part) => `${(100 * part).toFixed(1)} %`;
const times = ({ median }) => `${figure(median)}x`;

function training({ rows, model, bestPython, search }, options, name) {
  const head = ["", "pairs/s", "against the article's script", "against the best Python", "peak RSS, MiB"];
  const severalPythons = rows.filter(({ side }) => side === "python").length > 1;
  const body = rows.map((row) => [
    row.name,
    spread(row.pairsPerSecond),
    times(row.againstArticle),
    severalPythons ? times(row.againstBestPython) : "",
    mebibytes(row.peakBytes),
  ]);
  const { batch, max_length: length, warm, steps } = options;
  return [
    "### Training",
    `${model}, ${name(options.train)}, batch ${batch}, at most ${length} tokens, dropout as in its config on both sides, LoRA r 8, alpha 16 on query, key, value; both sides take the same batches. Steps: ${warm} to warm up, then ${steps} timed.${severalPythons ? ` The best Python: ${bestPython}.` : ""}`,
    markdownTable(head, body),
    ...(search ? [searched(search)] : []),
  ].join("\n\n");
}

function searched({ tried }) {
  const body = tried.map((setting) => [
    setting.name,
    settingText(setting),
    setting.pairsPerSecond === undefined ? "failed" : figure(setting.pairsPerSecond),
  ]);
  const said =
    "What was tried for the best Python, each on top of the best before it; bfloat16 is not float32 and never chosen:";
  return `${said}\n\n${markdownTable(["", "setting", "pairs/s"], body)}`;
}

function encoding({ rows, model, texts, batch }, options, name) {
  const head = [
    "",
    "texts/s",
    "one text, ms",
    "against ONNX fp32",
    "against ONNX int8",
    "least cosine",
    "peak RSS, MiB",
  ];
  const body = rows.map((row) => [
    row.name,
    spread(row.textsPerSecond),
    spread(row.milliseconds),
    row.againstOnnx && times(row.againstOnnx),
    row.againstOnnxInt8 && times(row.againstOnnxInt8),
    // Rounded down: what is not 1 shall not look like it.
    (Math.floor(row.cosine * 1e6) / 1e6).toFixed(6),
    mebibytes(row.peakBytes),
  ]);
  return [
    "### Encoding",
    `${model}, the first ${count(texts)} questions of ${name(options.test)} with the prefix \`query: \`, tokenisation included; Python in batches of ${batch} of like length. One text: the median of ${options.single}. Cosines are with sentence-transformers.`,
    markdownTable(head, body),
  ].join("\n\n");
}

function start({ rows, model }, options) {
  const body = rows.map((row) => [row.name, spread(row.seconds, 1000)]);
  return [
    "### Start",
    `From the command, the small encoder (${model}), ${options.starts} times after one that is not counted.`,
    markdownTable(["", "ms"], body),
  ].join("\n\n");
}

function scale({ pairs, lengths, model, stepTokens }, options) {
  const read = pairs.map((row) => [
    count(row.pairs),
    count(row.tokens),
    figure(row.seconds),
    figure((row.seconds * 1e6) / row.pairs),
    mebibytes(row.peakBytes),
  ]);
  const trained = lengths.map((row) => [
    row.length,
    row.batch,
    figure(row.microsecondsAToken),
    mebibytes(row.peakBytes),
  ]);
  return [
    "### Growth",
    `Reading and tokenising generated pairs (${model}, at most ${options.max_length} tokens), nothing else in the process:`,
    markdownTable(["pairs", "tokens", "s", "us a pair", "peak RSS, MiB"], read),
    `Training on generated texts of one length, some ${count(stepTokens)} tokens a step:`,
    markdownTable(["tokens a text", "pairs a step", "us a token", "peak RSS, MiB"], trained),
  ].join("\n\n");
}
