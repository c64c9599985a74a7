import { labelOf, scoreOf } from "./label.js";
import { columnIndex, type Table, type TableRecord } from "./table.js";

/** Names of the columns to read. */
export interface ExampleColumns {
  /** The first text, or the anchor; the second text, or the positive. */
  question1: string;
  question2: string;
  label: string;
  score: string | null;
  negatives: readonly string[];
}

export const DEFAULT_COLUMNS: ExampleColumns = {
  question1: "question1",
  question2: "question2",
  label: "is_duplicate",
  score: null,
  negatives: [],
};

/**
 * What an example is: a pair with a label of 0 or 1, a pair with a number that says how alike its texts are, a pair of
 * texts that belong together, such a pair with texts that do not, or one text.
 */
export type ExampleKind = "labels" | "scores" | "positives" | "negatives" | "texts";

/** Where a file has the parts of an example. */
export interface ExampleLayout {
  kind: ExampleKind;
  /** Columns of the texts, in their order. */
  texts: number[];
  /** Reads the label or score of a record, for kinds that have one. */
  label: ((record: TableRecord) => number) | undefined;
}

/** How a file of examples is read. */
export interface ExampleFormat {
  columns?: Partial<ExampleColumns>;
  /** What may be read from the file: the first kind whose columns it has. Labelled pairs unless told. */
  kinds?: readonly ExampleKind[];
  /** Lowest and highest score; any number unless told. */
  scoreRange?: readonly [number, number] | undefined;
}

/** The columns beside the two texts that make an example of a kind, and the flag that names them. */
const OTHER_COLUMNS: Record<
  ExampleKind,
  { flag?: string; names(columns: ExampleColumns): readonly string[] }
> = {
  labels: { flag: "label_column", names: ({ label }) => [label] },
  scores: { flag: "score_column", names: ({ score }) => (score === null ? [] : [score]) },
  negatives: { flag: "negative_column", names: ({ negatives }) => negatives },
  positives: { names: () => [] },
  texts: { names: () => [] },
};

/** Finds the columns of an example. @throws DATA_COLUMN, of the first kind where the file is of none. */
export function exampleLayout(table: Table, format: ExampleFormat): ExampleLayout {
  const { kinds = ["labels"], scoreRange } = format;
  const columns = { ...DEFAULT_COLUMNS, ...format.columns };
  const has = (kind: ExampleKind): boolean =>
    OTHER_COLUMNS[kind].names(columns).every((name) => table.columns.includes(name));
  const kind = kinds.find(has) ?? (kinds[0] as ExampleKind);
  const texts = [columnIndex(table, columns.question1, "question1_column")];
  if (kind !== "texts") texts.push(columnIndex(table, columns.question2, "question2_column"));
  const { flag, names } = OTHER_COLUMNS[kind];
  const others = names(columns).map((name) => columnIndex(table, name, flag));
  if (kind === "negatives") texts.push(...others);
  const [label = 0] = others;
  const readers: Partial<Record<ExampleKind, (record: TableRecord) => number>> = {
    labels: (record) => labelOf(table.path, record, label, columns.label),
    scores: (record) => scoreOf(table.path, record, label, columns.score as string, scoreRange),
  };
  return { kind, texts, label: readers[kind] };
}
