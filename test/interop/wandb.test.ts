import { readdirSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
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
done = subprocess.run([sys.executable, "-m", "wandb", "sync", "--yes", sys.argv[1]], capture_output=True, text=True, timeout=100)
print(json.dumps([done.returncode, done.stderr]))
`;

/** As much of W&B's server as an upload asks for. */
async function startServer(): Promise<{
  url: string;
  asked: { path: string; body: string }[];
  close: () => void;
}> {
  const asked: { path: string; body: string }[] = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const part of request.setEncoding("utf8")) body += part;
    asked.push({ path: request.url ?? "", body });
    response
      .setHeader("content-type", "application/json")
      .end(JSON.stringify(answer(request.url ?? "", body)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const answer = (path: string, body: string): object => {
    if (path !== "/graphql") return {};
    const { query, variables } = JSON.parse(body);
    const project = { id: "p", name: variables.project, entity: { id: "e", name: "me" } };
    const bucket = {
      id: "1",
      name: variables.name,
      displayName: "first",
      config: "{}",
      historyLineCount: 0,
      project,
    };
    if (query.includes("upsertBucket")) return { data: { upsertBucket: { bucket, inserted: true } } };
    const files = (variables.files ?? []).map((name: string) => ({ name, uploadUrl: `${url}/put/${name}` }));
    return { data: { createRunFiles: { runID: "1", uploadHeaders: [], files } } };
  };
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  return { url, asked, close };
}

it("Python's wandb reads an offline run that is written here, and uploads it", async () => {
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

  const { url, asked, close } = await startServer();
  try {
    const env = { WANDB_BASE_URL: url, WANDB_API_KEY: "a".repeat(40), HOME: temporary.path() };
    const [code, printed]: [number, string] = await python(SYNC, [run.path], env);
    expect(code, printed).toBe(0);
  } finally {
    close();
  }
  const upserted = JSON.parse(asked.find(({ path }) => path === "/graphql")?.body ?? "{}").variables;
  expect(upserted).toMatchObject({ project: "mine", displayName: "first" });
  expect(JSON.parse(upserted.config)).toMatchObject({ learning_rate: { value: 5e-4 } });
  const streamed = asked
    .filter(({ path }) => path.endsWith("/file_stream"))
    .flatMap(({ body }) => JSON.parse(body).files?.["wandb-history.jsonl"]?.content ?? [])
    .map((line) => JSON.parse(line));
  expect(streamed.map((line) => line["train/loss"])).toEqual(
    Array.from({ length: 500 }, (_, i) => 1 / (i + 1)),
  );
});
