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

/** Finds the columns of an example. @throws DATA_COLUMN, of the first kind where the file is of none. */
export function exampleLayout(table: Table, format: ExampleFormat): ExampleLayout {
  const { kinds = ["labels"], scoreRange } = format;
  const columns = { ...DEFAULT_COLUMNS, ...format.columns };
  const beside = (kind: ExampleKind): readonly string[] => {
    if (kind === "labels") return [columns.label];
    if (kind === "scores") return columns.score === null ? [] : [columns.score];
    return kind === "negatives" ? columns.negatives : [];
  };
  const has = (kind: ExampleKind): boolean => beside(kind).every((name) => table.columns.includes(name));
  const kind = kinds.find(has) ?? (kinds[0] as ExampleKind);
  const own = kind === "texts" ? [columns.question1] : [columns.question1, columns.question2];
  const texts = own.map((name) => columnIndex(table, name));
  const others = beside(kind).map((name) => columnIndex(table, name));
  if (kind === "negatives") texts.push(...others);
  const [label = 0] = others;
  const readers: Partial<Record<ExampleKind, (record: TableRecord) => number>> = {
    labels: (record) => labelOf(table.path, record, label, columns.label),
    scores: (record) => scoreOf(table.path, record, label, columns.score as string, scoreRange),
  };
  return { kind, texts, label: readers[kind] };
}
