import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { WandbRun } from "../../lib/tracking/wandb-run.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { python } from "./python.js";

const temporary = temporaryFolder();
const READ = `
import json, struct, sys, zlib
from wandb.proto import wandb_internal_pb2 as pb
content = open(sys.argv[1], "rb").read()
at, part, records = 7, b"", []
while at < len(content):
    left = 32768 - at % 32768
    if left < 7:
        at += left
        continue
    crc, length, kind = struct.unpack("<IHB", content[at:at + 7])
    data = content[at + 7:at + 7 + length]
    assert crc == zlib.crc32(data, zlib.crc32(bytes([kind])))
    part += data
    if kind in (1, 4):
        record = pb.Record()
        record.ParseFromString(part)
        records.append(record)
        part = b""
    at += 7 + length
values = lambda items: {i.key or i.nested_key[0]: json.loads(i.value_json) for i in items}
run, = [r.run for r in records if r.WhichOneof("record_type") == "run"]
history = [[r.history.step.num, values(r.history.item)] for r in records if r.WhichOneof("record_type") == "history"]
print(json.dumps([
    [r.WhichOneof("record_type") for r in records if r.num <= 4], [r.num for r in records] == list(range(1, len(records) + 1)),
    run.project, run.start_time.ToMilliseconds(), values(run.config.update), len(history), history[-1][0], history[-1][1]["train/loss"],
    records[-1].WhichOneof("record_type")]))
`;
const SYNC = `
import json, subprocess, sys
print(json.dumps(subprocess.run([sys.executable, "-m", "wandb", "sync", "--dry-run", sys.argv[1]], capture_output=True, text=True).stderr))
`;

it("Python's wandb reads an offline run that is written here, and would upload it", async () => {
  const now = 1767225600123;
  const settings = { project: "mine", entity: undefined, name: "first", folder: temporary.path() };
  const config = { learning_rate: 5e-4, lora_target_modules: ["query"], note: "x".repeat(70_000) };
  using run = new WandbRun(settings, config, "0.1.0", now);
  for (let step = 1; step <= 500; step++) run.scalars(step, new Map([["train/loss", 1 / step]]), now + step);
  run.finish();
  const file = readdirSync(run.path).find((name) => name.endsWith(".wandb")) ?? "";
  expect(await python(READ, [join(run.path, file)])).toEqual([
    ["header", "run", "summary", "history"],
    true,
    "mine",
    now,
    config,
    500,
    500,
    1 / 500,
    "exit",
  ]);
  expect(await python(SYNC, [run.path])).toMatch(/Would sync 1 run\(s\)/);
});
