import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { expect, it } from "vitest";
import { pieces, WandbRun } from "../../../lib/tracking/wandb-run.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();
const HEADER = Buffer.from("3a572642e1be00", "hex"); // as wandb 0.31 begins a file

/** The records of a log, each checked; throws where a piece is out of place. */
function readLog(content: Buffer, start: number): Buffer[] {
  const records: Buffer[] = [];
  let open: Buffer[] = [];
  for (let at = start; at < content.length; ) {
    const left = 32768 - (at % 32768);
    if (left < 7) {
      at += left;
      continue;
    }
    const length = content.readUInt16LE(at + 4);
    const type = content.readUInt8(at + 6);
    const data = content.subarray(at + 7, at + 7 + length);
    if (7 + length > left) throw new Error("a piece goes beyond its block");
    if (content.readUInt32LE(at) !== crc32(Buffer.concat([Buffer.from([type]), data])))
      throw new Error("checksum");
    if ((type === 1 || type === 2) !== (open.length === 0)) throw new Error("a piece out of place");
    open.push(data);
    if (type === 1 || type === 4) {
      records.push(Buffer.concat(open));
      open = [];
    }
    at += 7 + length;
  }
  return records;
}

it("records of any length lie in the log as LevelDB has it, wherever they start", () => {
  for (const start of [7, 32740, 32761, 32762, 32767, 32768]) {
    for (const length of [1, 6, 20, 32754, 32761, 32762, 100_000]) {
      const record = Buffer.alloc(length, length % 251);
      const written = Buffer.concat([Buffer.alloc(start), ...pieces(record, start)]);
      expect(readLog(written, start), `${length} bytes at ${start}`).toEqual([record]);
    }
  }
});

it("a run has wandb's header and a record for each call", () => {
  const settings = { project: "p", entity: undefined, name: undefined, folder: temporary.path() };
  using run = new WandbRun(settings, { lr: 0.5 }, "1.2.3", 1767225600000);
  run.scalars(1, new Map([["train/loss", Number.NaN]]), 1767225601000);
  run.finish();
  const file = readdirSync(run.path).find((name) => name.endsWith(".wandb")) ?? "";
  const content = readFileSync(join(run.path, file));
  expect(content.subarray(0, 7)).toEqual(HEADER);
  const records = readLog(content, 7);
  expect(records).toHaveLength(5);
  expect(records[0]?.includes("peft-train 1.2.3")).toBe(true);
  expect(records[3]?.includes("NaN")).toBe(true);
  expect(run.path).toMatch(/\/wandb\/offline-run-20260101_000000-[0-9a-f]{8}$/);
});
