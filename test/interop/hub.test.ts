import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Snapshot } from "../../lib/hub/snapshot.js";
import { FakeHub } from "../support/fake-hub.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { python } from "./python.js";

const temporary = temporaryFolder();
const FILES = {
  "config.json": "{}",
  "model.safetensors": "x".repeat(50_000),
  "1_Pooling/config.json": "{ }",
};
const READ = `
import json, sys
from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache
from huggingface_hub.file_download import _CACHED_NO_EXIST
files = [open(hf_hub_download("me/model", name)).read() for name in sys.argv[1:]]
missing = try_to_load_from_cache("me/model", "modules.json") is _CACHED_NO_EXIST
repository, = scan_cache_dir().repos
revision, = repository.revisions
print(json.dumps([files, missing, sorted(revision.refs), revision.size_on_disk, len(scan_cache_dir().warnings)]))
`;
const DOWNLOAD = `
import json
from huggingface_hub import snapshot_download
print(json.dumps(snapshot_download("me/model")))
`;
let hub: FakeHub;

beforeAll(async () => {
  hub = await FakeHub.start();
  hub.add("me/model", FILES);
});
afterAll(() => hub[Symbol.asyncDispose]());

/** Every file and link of a cache that says what is where. */
function layout(cache: string): string[] {
  return readdirSync(cache, { recursive: true, encoding: "utf8" })
    .filter((name) => /\/(snapshots|refs|blobs)\//.test(name) && !lstatSync(join(cache, name)).isDirectory())
    .map((name) => {
      const file = join(cache, name);
      const content = lstatSync(file).isSymbolicLink()
        ? `-> ${readlinkSync(file)}`
        : readFileSync(file, "utf8");
      return `${name} ${content}`;
    })
    .sort();
}

it("Python reads a cache that was filled here, without a network", async () => {
  const settings = hub.settings(temporary.path("ours", "hub"));
  const snapshot = await Snapshot.open({ id: "me/model", revision: "main" }, { settings });
  await snapshot.fetch(snapshot.names, "me/model");
  await snapshot.isKnown("modules.json");
  const env = { HF_HOME: temporary.path("ours"), HF_HUB_OFFLINE: "1" };
  const size = Object.values(FILES).reduce((sum, text) => sum + text.length, 0);
  expect(await python(READ, Object.keys(FILES), env)).toEqual([
    Object.values(FILES),
    true,
    ["main"],
    size,
    0,
  ]);
});

it("a cache that Python filled is the same, and is read here without a network", async () => {
  const env = { HF_HOME: temporary.path("theirs"), HF_ENDPOINT: hub.endpoint, HF_HUB_DISABLE_XET: "1" };
  const folder = await python(DOWNLOAD, [], env);
  const cache = temporary.path("theirs", "hub");
  expect(layout(cache)).toEqual(layout(temporary.path("ours", "hub")));
  const settings = hub.settings(cache, { offline: true });
  const snapshot = await Snapshot.open({ id: "me/model", revision: "main" }, { settings });
  expect(snapshot.path).toBe(folder);
  expect([...snapshot.names].sort()).toEqual(Object.keys(FILES).sort());
});
