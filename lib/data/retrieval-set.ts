import { PeftTrainError } from "../errors.js";
import { fileSize } from "./file-size.js";
import { scoreOf } from "./label.js";
import { openTable } from "./open-table.js";
import { columnIndex, place, type Table, type TableRecord } from "./table.js";
import { TokenBuffer } from "./token-buffer.js";
import type { Tokenizer } from "./tokenizer.js";

/** The three files of a test of retrieval, in any format that examples come in. */
export interface RetrievalFiles {
  /** Columns `_id` (or `id`), `text`, and perhaps `title`, which goes before the text. */
  corpus: string;
  /** Columns `_id` (or `id`) and `text`. */
  queries: string;
  /** Columns `query-id`, `corpus-id` and perhaps `score`: above 0 for a relevant document. */
  qrels: string;
}

export interface RetrievalSource extends RetrievalFiles {
  queryPrefix: string;
  corpusPrefix: string;
  /** Tokens of a text, [CLS] and [SEP] counted. */
  maxLength: number;
}

/** Queries and corpus as packed token ids. */
export interface RetrievalSet {
  queries: number;
  documents: number;
  /** First the queries that have a relevant document, then the corpus. */
  ids: Int32Array;
  /** Text i is `ids[offsets[i] .. offsets[i + 1])`. */
  offsets: Float64Array;
  /** Of each query. */
  relevance: ReadonlyMap<number, number>[];
  /** Place of each document by its id, in the order of code points: what decides between equal scores. */
  ranks: Int32Array;
  /** The document with the same id as the query; -1 where there is none. */
  twins: Int32Array;
  /** Queries that no document is relevant to, which are left out; relevant documents that the corpus has not. */
  unjudgedQueries: number;
  missingDocuments: number;
}

const TEXTS_AT_A_TIME = 1024;

/**
 * Reads a corpus, queries and which documents are relevant to which query, and tokenises as it streams.
 * @param onProgress Bytes read of one of the files, and in all (0 where that cannot be known).
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, DATA_EMPTY, DATA_COLUMN, DATA_LABEL or DATA_MALFORMED.
 */
export async function loadRetrievalSet(
  source: RetrievalSource,
  tokenizer: Tokenizer,
  onProgress?: (file: string, bytesRead: number, bytesTotal: number) => void,
): Promise<RetrievalSet> {
  const open = (file: string): Promise<Table> => openCounted(file, onProgress);
  const judged = await readQrels(await open(source.qrels));
  const { maxLength } = source;
  const buffer = new TokenBuffer(1 << 16, 1 << 12);
  const read = async (file: string, prefix: string, wanted: (id: string) => boolean): Promise<IdTable> => {
    const table = await open(file);
    const ids = new IdTable(table);
    let texts: string[] = [];
    const flush = async (): Promise<void> => {
      if (texts.length > 0) buffer.pushBatch(await tokenizer.encode(texts, maxLength));
      texts = [];
    };
    for await (const records of table.records) {
      for (const record of records) {
        if (!ids.add(record, wanted)) continue;
        texts.push(prefix + ids.text(record));
        if (texts.length >= TEXTS_AT_A_TIME) await flush();
      }
    }
    await flush();
    return ids;
  };
  const queries = await read(source.queries, source.queryPrefix, (id) => judged.has(id));
  if (queries.count === 0) {
    throw new PeftTrainError(
      "DATA_EMPTY",
      `no query of ${source.queries} has a relevant document in ${source.qrels}`,
      { hint: "The ids of both must be the same, and the score of a relevant document above 0." },
    );
  }
  const corpus = await read(source.corpus, source.corpusPrefix, () => true);
  if (corpus.count === 0) throw new PeftTrainError("DATA_EMPTY", `${source.corpus} holds no documents`);
  let missingDocuments = 0;
  const relevance = queries.all.map((query) => {
    const grades = new Map<number, number>();
    for (const [id, grade] of judged.get(query) ?? []) {
      grades.set(corpus.index(id) ?? -++missingDocuments, grade);
    }
    return grades;
  });
  return {
    queries: queries.count,
    documents: corpus.count,
    ...buffer.finish(),
    relevance,
    ranks: ranksOf(corpus.all),
    twins: Int32Array.from(queries.all, (id) => corpus.index(id) ?? -1),
    unjudgedQueries: queries.passedOver,
    missingDocuments,
  };
}

/** What does not fit, and changes what is measured. */
export function retrievalWarnings(
  { unjudgedQueries, missingDocuments }: RetrievalSet,
  { corpus, queries, qrels }: RetrievalFiles,
): string[] {
  const warnings: string[] = [];
  if (unjudgedQueries > 0) {
    warnings.push(`${unjudgedQueries} queries of ${queries} have no relevant document in ${qrels}; left out`);
  }
  if (missingDocuments > 0) {
    warnings.push(
      `${missingDocuments} relevant documents of ${qrels} are not in ${corpus}; they count as not found`,
    );
  }
  return warnings;
}

async function openCounted(
  file: string,
  onProgress?: (file: string, bytesRead: number, bytesTotal: number) => void,
): Promise<Table> {
  const total = await fileSize(file);
  let read = 0;
  return openTable(file, (bytes) => {
    read += bytes.length;
    onProgress?.(file, read, total);
  });
}

/** Grades above 0 by query and document. */
async function readQrels(table: Table): Promise<Map<string, Map<string, number>>> {
  requireHeader(table);
  const [query, document] = [columnIndex(table, "query-id"), columnIndex(table, "corpus-id")];
  const score = table.columns.includes("score") ? columnIndex(table, "score") : undefined;
  const judged = new Map<string, Map<string, number>>();
  for await (const records of table.records) {
    for (const record of records) {
      const grade = score === undefined ? 1 : scoreOf(table.path, record, score, "score");
      if (grade <= 0) continue;
      const id = record.fields[query] as string;
      const grades = judged.get(id) ?? new Map<string, number>();
      judged.set(id, grades.set(record.fields[document] as string, grade));
    }
  }
  return judged;
}

/** TREC's own files have neither header nor tabs. */
function requireHeader({ path, columns }: Table): void {
  if (columns.includes("query-id") || !/^\S+ +\S+ +\S+ +-?\d+$/.test(columns.join(" ").trim())) return;
  throw new PeftTrainError(
    "DATA_COLUMN",
    `${path} has no column "query-id": it looks like a qrels file of TREC`,
    {
      hint: "Write it with tabs between query-id, corpus-id and score, and these names as its first line.",
    },
  );
}

/** The ids of a file's records, and where their text is. */
class IdTable {
  readonly all: string[] = [];
  passedOver = 0;
  private readonly indices = new Map<string, number>();
  private readonly id: number;
  private readonly body: number;
  private readonly title: number | undefined;

  constructor(private readonly table: Table) {
    const has = (name: string): boolean => table.columns.includes(name);
    this.id = columnIndex(table, !has("_id") && has("id") ? "id" : "_id");
    this.body = columnIndex(table, "text");
    this.title = has("title") ? columnIndex(table, "title") : undefined;
  }

  get count(): number {
    return this.all.length;
  }

  index(id: string): number | undefined {
    return this.indices.get(id);
  }

  /** @throws DATA_MALFORMED for an id that was there before. */
  add(record: TableRecord, wanted: (id: string) => boolean): boolean {
    const id = record.fields[this.id] as string;
    if (!wanted(id)) {
      this.passedOver++;
      return false;
    }
    if (this.indices.has(id)) {
      const where = place(this.table.path, record);
      throw new PeftTrainError("DATA_MALFORMED", `${where}: the id ${JSON.stringify(id)} was there before`);
    }
    this.indices.set(id, this.all.length);
    this.all.push(id);
    return true;
  }

  /** A title goes before its text, as BEIR has it. */
  text({ fields }: TableRecord): string {
    const body = fields[this.body] as string;
    return this.title === undefined ? body : `${fields[this.title]} ${body}`.trim();
  }
}

/** The order of Python's strings, which is that of UTF-8 and not of UTF-16. */
function ranksOf(ids: readonly string[]): Int32Array {
  const bytes = ids.map((id) => Buffer.from(id));
  const order = Int32Array.from(ids.keys()).sort((a, b) =>
    Buffer.compare(bytes[a] as Buffer, bytes[b] as Buffer),
  );
  const ranks = new Int32Array(ids.length);
  for (const [rank, document] of order.entries()) ranks[document] = rank;
  return ranks;
}
