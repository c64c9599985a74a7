import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { outcome, runCli, startCli } from "../support/cli.js";
import { cutAfter, FakeHub } from "../support/fake-hub.js";
import { writePairs } from "../support/pairs-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

// The real command and the real engine, against a Hub on the loopback.
const temporary = temporaryFolder();
let hub: FakeHub;
let env: NodeJS.ProcessEnv;
const TRAIN = [
  "--dataset_name=train.csv",
  "--eval_dataset_name=train.csv",
  "--max_length=40",
  "--max_train_steps=3",
];
const runHere = (args: string[], changes: NodeJS.ProcessEnv = {}) =>
  runCli(args, { cwd: temporary.path(), env: { ...env, ...changes } });

function filesOf(folder: string): Record<string, Buffer> {
  return Object.fromEntries(
    readdirSync(temporary.path(folder)).map((name) => [name, readFileSync(temporary.path(folder, name))]),
  );
}

beforeAll(async () => {
  hub = await FakeHub.start();
  env = hub.environment(temporary.path("hf"));
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("train.csv"), 60);
  hub.add("me/tiny", {
    ...filesOf("model"),
    "1_Pooling/config.json": '{"pooling_mode_cls_token": true}',
    "pytorch_model.bin": "pickle",
    "onnx/model.onnx": "x".repeat(5000),
    "README.md": "a card",
  });
  hub.add("me/pickled", {
    "config.json": filesOf("model")["config.json"] as Buffer,
    "pytorch_model.bin": "pickle",
  });
});
afterAll(() => hub[Symbol.asyncDispose]());
beforeEach(() => {
  hub.asked.length = 0;
  hub.fault = () => false;
});

describe("a model of the Hub", () => {
  it("is fetched as far as it is needed, trained on, evaluated and encoded with", async () => {
    const { code, stderr, stdout } = await runHere([
      "--model_name_or_path=me/tiny@v1",
      "--output_dir=out",
      ...TRAIN,
    ]);
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/^Downloading me\/tiny\/model\.safetensors: 100 %$/m);
    expect(stdout).toContain("me/tiny: 60 pairs");
    const fetched = new Set(
      hub
        .downloads()
        .filter((one) => !one.storage)
        .map(({ path }) => path.split("/").slice(5).join("/")),
    );
    expect(fetched).toEqual(
      new Set([
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "1_Pooling/config.json",
      ]),
    );
    const config = JSON.parse(readFileSync(temporary.path("out", "adapter_config.json"), "utf8"));
    expect(config).toMatchObject({ base_model_name_or_path: "me/tiny", revision: "v1" });
    expect(JSON.parse(readFileSync(temporary.path("out", "peft_train.json"), "utf8")).pooling).toBe("cls");

    const offline = { HF_HUB_OFFLINE: "1" };
    const evaluated = await runHere(
      ["eval", "--model_name_or_path=me/tiny@v1", "--adapter=out", "--dataset_name=train.csv", "--json"],
      offline,
    );
    expect(evaluated.code, evaluated.stderr).toBe(0);
    expect(JSON.parse(evaluated.stdout)).toMatchObject({ pairs: 60 });
    const unknown = await runHere(
      ["eval", "--model_name_or_path=me/tiny", "--adapter=out", "--dataset_name=train.csv"],
      offline,
    );
    expect(unknown.stderr).toMatch(/^error: there is no folder me\/tiny, and HF_HUB_OFFLINE is set/m);
  });

  it("is quantised into a folder of files, not of links", async () => {
    const { code, stderr } = await runHere(["quantize", "me/tiny", "--int8", "--out=quantised"]);
    expect(code, stderr).toBe(0);
    expect(readFileSync(temporary.path("quantised", "1_Pooling", "config.json"), "utf8")).toContain("cls");
    expect(readFileSync(temporary.path("quantised", "tokenizer.json"))).toEqual(
      filesOf("model")["tokenizer.json"],
    );
    const entries = readdirSync(temporary.path("quantised"), { withFileTypes: true, recursive: true });
    expect(entries.filter((entry) => entry.isSymbolicLink())).toEqual([]);
  });

  it("that has pickled weights only is refused before they are touched", async () => {
    const { code, stderr } = await runHere([
      "--model_name_or_path=me/pickled",
      "--output_dir=never",
      ...TRAIN,
    ]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: me\/pickled has pytorch_model\.bin and no model\.safetensors; pickled/m);
    expect(hub.downloads().filter(({ path }) => /\.bin$/.test(path))).toEqual([]);
  });

  it("is not asked for before data and output folder were looked at", async () => {
    const data = await runHere([
      "--model_name_or_path=me/tiny",
      "--dataset_name=none.csv",
      "--output_dir=never",
    ]);
    expect(data.stderr).toMatch(/^error: there is no file none\.csv$/m);
    const taken = await runHere(["--model_name_or_path=me/tiny", ...TRAIN, "--output_dir=model"]);
    expect(taken.stderr).toMatch(/^error: --output_dir=model is not empty/m);
    expect(hub.asked).toEqual([]);
  });

  it("is gone on with after Ctrl-C", async () => {
    rmSync(temporary.path("hf"), { recursive: true });
    hub.fault = (asked, response, content) => {
      if (!asked.storage || (content?.length ?? 0) < 50_000) return false;
      response.writeHead(200, { "content-length": content?.length });
      response.write(content?.subarray(0, 20_000));
      return true;
    };
    const child = startCli(["--model_name_or_path=me/tiny", "--output_dir=later", ...TRAIN], {
      cwd: temporary.path(),
      env,
    });
    const done = outcome(child);
    while (!hub.asked.some(({ storage, path }) => storage && path.length > 40))
      await new Promise((go) => setTimeout(go, 20));
    const partial = () =>
      readdirSync(temporary.path("hf"), { recursive: true, encoding: "utf8" }).some((name) =>
        name.endsWith(".incomplete"),
      );
    while (!existsSync(temporary.path("hf")) || !partial()) await new Promise((go) => setTimeout(go, 20));
    await new Promise((go) => setTimeout(go, 300));
    child.kill("SIGINT");
    const { code, stderr } = await done;
    expect(code).toBe(130);
    expect(stderr).toMatch(
      /^error: stopped while downloading model\.safetensors; what is there already is kept$/m,
    );
    hub.asked.length = 0;
    hub.fault = () => false;
    const again = await runHere(["--model_name_or_path=me/tiny", "--output_dir=later", ...TRAIN]);
    expect(again.code, again.stderr).toBe(0);
    expect(hub.downloads().some(({ storage, range }) => storage && range === "bytes=20000-")).toBe(true);
  });
});

describe("--push_to_hub", () => {
  it("uploads the adapter with a card that the Hub can read, and the adapter can be used from there", async () => {
    const { code, stderr, stdout } = await runHere([
      "--model_name_or_path=me/tiny",
      "--output_dir=pushed",
      "--push_to_hub",
      "--hub_model_id=team/adapter",
      "--hub_private_repo",
      ...TRAIN,
    ]);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain(`Uploaded to ${hub.endpoint}/team/adapter`);
    expect(hub.created).toMatchObject([{ name: "adapter", organization: "team", visibility: "private" }]);
    const { repository, files } = hub.commits.at(-1) ?? { files: new Map<string, Buffer>() };
    expect(repository).toBe("team/adapter");
    for (const name of [
      "adapter_model.safetensors",
      "adapter_config.json",
      "peft_train.json",
      "tokenizer.json",
      "train_config.json",
    ]) {
      expect(files.get(name)?.equals(readFileSync(temporary.path("pushed", name))), name).toBe(true);
    }
    const card = String(files.get("README.md"));
    const metadata = parse(card.split("---\n")[1] ?? "");
    expect(metadata).toMatchObject({
      base_model: "me/tiny",
      library_name: "peft",
      metrics: expect.arrayContaining(["roc_auc"]),
    });
    const result = metadata["model-index"][0].results[0].metrics[0];
    const log = readFileSync(temporary.path("pushed", "train_log.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(result.value).toBeCloseTo(log.findLast(({ event }) => event === "evaluated").metrics.roc_auc, 6);
    expect([...files.values()].some((content) => content.includes("hf_secret"))).toBe(false);

    hub.add("team/adapter", Object.fromEntries(files));
    const args = ["eval", "--model_name_or_path=me/tiny", "--dataset_name=train.csv", "--json"];
    const [there, here] = [
      await runHere([...args, "--adapter=team/adapter"]),
      await runHere([...args, "--adapter=pushed"]),
    ];
    expect(there.code, there.stderr).toBe(0);
    expect(JSON.parse(there.stdout).loss).toBe(JSON.parse(here.stdout).loss);
  });

  it("into a repository that is there, under the token's user and the folder's name", async () => {
    hub.created.push({ name: "again", organization: "me" });
    const { code, stderr } = await runHere([
      "--model_name_or_path=me/tiny",
      "--output_dir=again",
      "--push_to_hub",
      ...TRAIN,
    ]);
    expect(code, stderr).toBe(0);
    expect(hub.commits.at(-1)?.repository).toBe("me/again");
  });

  it("finds out before training that the token is missing, or may only read", async () => {
    const args = ["--model_name_or_path=model", "--output_dir=never", "--push_to_hub", ...TRAIN];
    const none = await runHere(args, { HF_TOKEN: "" });
    expect(none.stderr).toMatch(/^error: --push_to_hub needs a token/m);
    hub.role = "read";
    const reader = await runHere(args);
    hub.fault = (_, response) => {
      response.writeHead(401).end();
      return true;
    };
    const wrong = await runHere(args);
    expect(wrong.stderr).toMatch(/^error: .* refuses the token for your account \(HTTP 401\)$/m);
    hub.role = "write";
    expect(reader.stderr).toMatch(/^error: the token of me may only read/m);
    expect(existsSync(temporary.path("never"))).toBe(false);
  });

  it("that fails keeps the adapter and says where it is", async () => {
    mkdirSync(temporary.path("kept"), { recursive: true });
    hub.fault = ({ path, storage, method }, response, content) => {
      if (storage && method === "PUT") {
        cutAfter(response, content ?? Buffer.alloc(10), undefined, 1);
        return true;
      }
      if (!path.includes("/preupload/")) return false;
      response.writeHead(403).end();
      return true;
    };
    const { code, stderr } = await runHere([
      "--model_name_or_path=model",
      "--output_dir=kept",
      "--push_to_hub",
      ...TRAIN,
    ]);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^error: the upload failed: .*refuses the token for me\/kept \(HTTP 403\); the adapter is in .*kept$/m,
    );
    expect(stderr).not.toContain("hf_secret");
    expect(readdirSync(temporary.path("kept"))).toContain("adapter_model.safetensors");
  });
});
