import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { cacheFolder } from "../dist/setup/cache.js";
import { NO_NETWORK, virtualEnvironment } from "../scripts/python-environment.mjs";
import { eventNamed, runProgram } from "./process.mjs";

const REQUIRED = ["torch", "transformers", "peft", "sentence-transformers", "onnxruntime", "onnx"];

/** The Python of the peers, and what its scripts have made once and for all in the cache. */
export class PeerPython {
  constructor(root, program, { model, versions }) {
    this.root = root;
    this.program = program;
    /** Folder of all-MiniLM-L6-v2 in its package; null without it. */
    this.model = model;
    this.versions = versions;
    this.cache = path.join(cacheFolder(), "bench");
  }

  /** Makes the environment on its first run; PEFT_TRAIN_BENCH_PYTHON names a Python that has everything already. */
  static async open(root, say) {
    const list = (name) => path.join(root, name);
    const program =
      process.env.PEFT_TRAIN_BENCH_PYTHON ||
      virtualEnvironment(
        path.join(cacheFolder(), "bench-python"),
        [list("test/interop/requirements.txt"), list("bench/peers/requirements.txt")],
        [list("test/interop/requirements-torch.txt")],
        say,
      );
    const script = path.join(root, "bench/peers/versions.py");
    const found = eventNamed(await runProgram(program, [script], { env: NO_NETWORK }), "versions");
    const missing = REQUIRED.filter((name) => found.versions[name] === null);
    if (missing.length > 0)
      throw new Error(
        `${program} lacks ${missing.join(", ")}; bench/peers/requirements.txt has the versions`,
      );
    return new PeerPython(root, program, found);
  }

  /** Runs one of bench/peers. */
  run(script, args, { env = {}, timeoutSeconds } = {}) {
    const file = path.join(this.root, "bench/peers", script);
    return runProgram(this.program, [file, ...args], { env: { ...NO_NETWORK, ...env }, timeoutSeconds });
  }

  /** A folder in the cache that `script` fills from `source`, once for each content of `source` and of the script. */
  async made(name, script, source, keyFile) {
    const hash = createHash("sha256");
    hash.update(readFileSync(path.join(this.root, "bench/peers", script)));
    hash.update(JSON.stringify(this.versions));
    hash.update(readFileSync(keyFile));
    const folder = path.join(this.cache, `${name}-${hash.digest("hex").slice(0, 12)}`);
    if (existsSync(folder)) return folder;
    mkdirSync(this.cache, { recursive: true });
    await this.run(script, [source, folder]);
    return folder;
  }

  /** A model of e5-small's shape with random weights and the tokenizer of `model`. */
  e5Shape(model) {
    return this.made("e5-small-shape", "make_shape.py", model, path.join(model, "tokenizer.json"));
  }

  /** A folder with fp32.onnx and int8.onnx. */
  onnx(model) {
    return this.made("onnx", "export_onnx.py", model, path.join(model, "model.safetensors"));
  }
}
