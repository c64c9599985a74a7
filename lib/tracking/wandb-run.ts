import { randomBytes } from "node:crypto";
import { closeSync, fsyncSync, mkdirSync, openSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import path from "node:path";
import { crc32 } from "node:zlib";
import { outputError } from "../data/file-error.js";
import { bytes, int, text } from "./protobuf.js";

const BLOCK = 32 * 1024;
const HEADER = 7;
const FULL = 1;
const FIRST = 2;
const MIDDLE = 3;
const LAST = 4;
/** Fields of W&B's `Record`. */
const [NUM, HISTORY, SUMMARY, RUN, EXIT, FILE_HEADER] = [1, 2, 3, 17, 18, 21];
/** The oldest wandb that can read what is written here, as wandb's own runs say it. */
const MIN_CONSUMER = "0.70.0";

export interface WandbSettings {
  project: string;
  /** Undefined: whoever uploads the run. */
  entity: string | undefined;
  name: string | undefined;
  /** The folder of wandb/. */
  folder: string;
}

/** As wandb takes them from the environment. */
export function wandbSettings(env: NodeJS.ProcessEnv = process.env): WandbSettings {
  return {
    project: env.WANDB_PROJECT || "peft-train",
    entity: env.WANDB_ENTITY || undefined,
    name: env.WANDB_NAME || undefined,
    folder: path.resolve(env.WANDB_DIR || "."),
  };
}

/**
 * An offline run of Weights & Biases, which `wandb sync` uploads: a log in LevelDB's format (blocks of 32 KiB, a checksum a
 * piece) of `Record` messages.
 */
export class WandbRun implements Disposable {
  /** The folder that `wandb sync` takes. */
  readonly path: string;
  private readonly descriptor: number;
  private readonly startedAt: number;
  private position = 0;
  private records = 0;

  /** @throws OUTPUT_UNWRITABLE */
  constructor(
    settings: WandbSettings,
    config: Readonly<Record<string, unknown>>,
    version: string,
    now: number = Date.now(),
  ) {
    this.startedAt = now;
    const id = randomBytes(4).toString("hex");
    const time = new Date(now)
      .toISOString()
      .replace(/[-:]|\..*/g, "")
      .replace("T", "_");
    this.path = path.join(settings.folder, "wandb", `offline-run-${time}-${id}`);
    const file = path.join(this.path, `run-${id}.wandb`);
    try {
      mkdirSync(path.join(this.path, "files"), { recursive: true });
      this.descriptor = openSync(file, "wx");
      this.append(Buffer.from([...Buffer.from(":W&B"), 0xe1, 0xbe, 0]));
    } catch (cause) {
      throw outputError(file, cause);
    }
    const producer = Buffer.concat([text(1, `peft-train ${version}`), text(2, MIN_CONSUMER)]);
    this.write(FILE_HEADER, bytes(1, producer));
    this.write(RUN, encodeRun(id, settings, config, now));
  }

  scalars(step: number, values: ReadonlyMap<string, number>, now: number = Date.now()): void {
    if (values.size === 0) return;
    const all = {
      ...Object.fromEntries(values),
      _timestamp: now / 1000,
      _runtime: (now - this.startedAt) / 1000,
      _step: step,
    };
    // NaN and Infinity as Python's json, and so wandb, writes them.
    const items = Object.entries(all).map(([name, value]) => bytes(1, item(2, name, String(value))));
    this.write(SUMMARY, Buffer.concat(items));
    this.write(HISTORY, Buffer.concat([...items, bytes(2, int(1, step))]));
  }

  /** Marks the run as ended; one that is not counts as crashed. */
  finish(): void {
    this.write(EXIT, int(2, Math.round((Date.now() - this.startedAt) / 1000)));
  }

  [Symbol.dispose](): void {
    try {
      fsyncSync(this.descriptor);
    } finally {
      closeSync(this.descriptor);
    }
  }

  private write(field: number, message: Uint8Array): void {
    const record = Buffer.concat([int(NUM, ++this.records), bytes(field, message)]);
    try {
      for (const piece of pieces(record, this.position)) this.append(piece);
    } catch (cause) {
      throw outputError(this.path, cause);
    }
  }

  private append(content: Uint8Array): void {
    writeSync(this.descriptor, content);
    this.position += content.length;
  }
}

/** A record as it stands in the log from `position` on: no piece goes beyond its block. */
export function pieces(record: Uint8Array, position: number): Buffer[] {
  const out: Buffer[] = [];
  let at = position;
  let start = 0;
  let isBegun = false;
  while (!isBegun || start < record.length) {
    const left = BLOCK - (at % BLOCK);
    if (left < HEADER) {
      out.push(Buffer.alloc(left));
      at += left;
      continue;
    }
    const data = record.subarray(start, start + left - HEADER);
    start += data.length;
    const isEnd = start === record.length;
    const type = isEnd ? (isBegun ? LAST : FULL) : isBegun ? MIDDLE : FIRST;
    const head = Buffer.alloc(HEADER);
    head.writeUInt32LE(crc32(data, crc32(Buffer.from([type]))));
    head.writeUInt16LE(data.length, 4);
    head.writeUInt8(type, 6);
    out.push(head, Buffer.from(data));
    at += HEADER + data.length;
    isBegun = true;
  }
  return out;
}

/** RunRecord { run_id: 1, entity: 2, project: 3, config: 4, display_name: 8, host: 13, start_time: 17 } */
function encodeRun(
  id: string,
  { entity, project, name }: WandbSettings,
  config: Readonly<Record<string, unknown>>,
  now: number,
): Buffer {
  const updates = Object.entries(config).map(([key, value]) =>
    bytes(1, item(1, key, JSON.stringify(value ?? null))),
  );
  const seconds = Math.floor(now / 1000);
  return Buffer.concat([
    text(1, id),
    ...(entity === undefined ? [] : [text(2, entity)]),
    text(3, project),
    bytes(4, Buffer.concat(updates)),
    ...(name === undefined ? [] : [text(8, name)]),
    text(13, hostname()),
    bytes(17, Buffer.concat([int(1, seconds), int(2, (now - 1000 * seconds) * 1e6)])),
  ]);
}

/** { key: 1 or nested_key: 2, value_json: 16 } */
function item(keyField: 1 | 2, key: string, json: string): Buffer {
  return Buffer.concat([text(keyField, key), text(16, json)]);
}
