import { stat } from "node:fs/promises";
import { beirFiles } from "../data/beir-folder.js";
import type { RetrievalFiles } from "../data/retrieval-set.js";
import { PeftTrainError } from "../errors.js";
import { checkedKs } from "../train/evaluation/evaluate-retrieval.js";
import { type FlagValues, textFlag } from "./flags.js";

const FILE_FLAGS = ["corpus", "queries", "qrels"] as const;
const OTHER_FLAGS = ["k", "ignore_identical_ids"] as const;
/** Columns of pairs and triplets, which a test of retrieval has not. */
const PAIR_FLAGS = [
  "question1_column",
  "question2_column",
  "label_column",
  "score_column",
  "negative_column",
] as const;

export interface RetrievalFlags {
  files: RetrievalFiles;
  /** What was measured, for a line of output. */
  name: string;
  ks: readonly number[] | undefined;
  ignoreIdenticalIds: boolean;
}

/**
 * What the flags of `eval` say of a test of retrieval; undefined where they are about pairs or triplets.
 * @throws USAGE for flags that do not go together, FILE_NOT_FOUND for a folder without the files.
 */
export async function retrievalFlags(args: FlagValues): Promise<RetrievalFlags | undefined> {
  const given = FILE_FLAGS.filter((name) => args[name] !== undefined);
  const dataset = textFlag(args, "dataset_name");
  const isFolder =
    dataset !== undefined && (await stat(dataset).catch(() => undefined))?.isDirectory() === true;
  if (given.length === 0 && !isFolder) {
    const alone = OTHER_FLAGS.find((name) => args[name] !== undefined);
    if (alone === undefined) return undefined;
    throw new PeftTrainError("USAGE", `--${alone} is of a test of retrieval`, { hint: EXAMPLE });
  }
  const wrong = PAIR_FLAGS.find((name) => args[name] !== undefined);
  if (wrong !== undefined) {
    throw new PeftTrainError("USAGE", `--${wrong} is of pairs and triplets, not of a test of retrieval`);
  }
  const ks = ksOf(textFlag(args, "k"));
  const ignoreIdenticalIds = args.ignore_identical_ids === true;
  const qrels = textFlag(args, "qrels");
  if (dataset !== undefined) {
    const twice = given.find((name) => name !== "qrels");
    if (!isFolder || twice !== undefined) {
      throw new PeftTrainError(
        "USAGE",
        `--${twice ?? "qrels"} and --dataset_name=${dataset} do not go together`,
        {
          hint: EXAMPLE,
        },
      );
    }
    return { files: await beirFiles(dataset, qrels), name: dataset, ks, ignoreIdenticalIds };
  }
  const missing = FILE_FLAGS.find((name) => args[name] === undefined);
  if (missing !== undefined) {
    throw new PeftTrainError("USAGE", `--${missing} is required with --${given.join(" and --")}`, {
      hint: EXAMPLE,
    });
  }
  const [corpus, queries] = [textFlag(args, "corpus") as string, textFlag(args, "queries") as string];
  return { files: { corpus, queries, qrels: qrels as string }, name: corpus, ks, ignoreIdenticalIds };
}

const EXAMPLE =
  "Give --dataset_name a folder with corpus.jsonl, queries.jsonl and qrels/test.tsv, or all of --corpus, --queries and --qrels.";

function ksOf(text: string | undefined): readonly number[] | undefined {
  return text === undefined ? undefined : checkedKs(text.split(","), "--k");
}
