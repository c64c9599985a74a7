// Lines of train_log.jsonl that are there for the report alone: what losses and metrics leave out. `--no-report` leaves
// them out too.

/** Losses of all steps since the last such line, averaged so that a run has about a thousand points however long it is. */
export interface CurveLine {
  event: "curve";
  /** Last step of each point, which is the mean over the steps after that of the point before. */
  steps: number[];
  losses: number[];
  learningRates: number[];
  pairsPerSecond: number[];
}

/** How the scores of an evaluation lie, and which examples it got most wrong. */
export interface ScoresLine {
  event: "scores";
  epoch: number;
  step: number;
  distribution: Distribution;
  worst: WorstExample[];
}

export type Distribution =
  | { kind: "labels"; positive: Histogram; negative: Histogram; roc: RocPoints }
  | { kind: "scores"; groups: ScoreGroup[] }
  /** Cosine to the positive less cosine to a negative: right above 0. */
  | { kind: "negatives"; margins: Histogram }
  | { kind: "texts"; cosines: Histogram };

/** Counts of bins of equal width; what lies outside the outermost is empty. */
export interface Histogram {
  /** Lower edge of the first bin, in bins from 0. */
  first: number;
  width: number;
  counts: number[];
}

/** Points of a ROC curve; a threshold of null calls nothing positive. */
export interface RocPoints {
  falsePositiveRate: number[];
  truePositiveRate: number[];
  threshold: (number | null)[];
}

/** Pairs whose scores are alike, and the quartiles of their cosines. */
export interface ScoreGroup {
  score: number;
  pairs: number;
  quartiles: [number, number, number];
}

export interface WorstExample {
  /** Its place in the evaluation set. */
  example: number;
  /** Which of its texts matter: both of a pair, or anchor, positive and the nearest negative. */
  texts: number[];
  /** Cosine of the first with each other one; of a text alone, to its vector. */
  scores: number[];
}

/** What is known at the end of a run only. */
export interface ReportLine {
  event: "report";
  /** Of the evaluation whose mistakes these are; null without any. */
  step: number | null;
  /** The most memory that the process had, libtorch and all. */
  peakResidentBytes: number;
  evalFile: string | null;
  /** Why the texts could not be read again, if so. */
  missingTexts: string | null;
  mistakes: Mistake[];
}

export interface Mistake {
  /** Where it is in the file, as "row 12". */
  place: string;
  /** Label or score; null where there is none. */
  label: number | null;
  /** As in the file, long ones cut; empty where they could not be read. */
  texts: string[];
  /** Cosines by the base model, and as trained. */
  before: number[];
  after: number[];
}
