import { fileURLToPath } from "node:url";
import { beforeAll, expect, it } from "vitest";
import { Encoder } from "../../lib/encoder.js";
import { runCli } from "../support/cli.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { python } from "./python.js";

const temporary = temporaryFolder();
const DATA = fileURLToPath(new URL("../../data", import.meta.url));
const TEXTS = ["how do I learn to swim", "what is the best way to learn swimming", "a"];
/** Vectors of sentence-transformers with its default prompt and by name, and the type of AutoModel's weights. */
const READ = `
import json, sys
from sentence_transformers import SentenceTransformer
from transformers import AutoModel
model = SentenceTransformer(sys.argv[1], device="cpu")
texts = sys.argv[2:]
vectors = [model.encode(texts, prompt_name=name).tolist() for name in (None, "query", "document")]
auto = AutoModel.from_pretrained(sys.argv[1])
print(json.dumps([vectors, str(auto.dtype), model.max_seq_length]))
`;

beforeAll(async () => {
  const flags = ["--no-use_peft", "--learning_rate=1e-4", "--max_train_steps=5", "--max_length=20"];
  const files = [`--model_name_or_path=${DATA}/encoder`, `--dataset_name=${DATA}/pairs/train.csv`];
  const prefix = "--question2_prefix=passage: ";
  const run = await runCli([...files, ...flags, prefix, `--output_dir=${temporary.path("out")}`]);
  expect(run.code, run.stderr).toBe(0);
});

it("a model whose parameters were all trained is one to sentence-transformers and transformers", async () => {
  const folder = temporary.path("out");
  const [found, type, maxLength]: [number[][][], string, number] = await python(READ, [folder, ...TEXTS]);
  expect(type).toBe("torch.float32");
  expect(maxLength).toBe(20);
  await using encoder = await Encoder.load(folder);
  for (const [i, prefix] of ["query: ", "query: ", "passage: "].entries()) {
    const ours = await encoder.encode(TEXTS, { prefix });
    for (const [row, vector] of ours.entries()) {
      // Two encoders in fp32.
      for (const [j, value] of vector.entries())
        expect(Math.abs(value - (found[i]?.[row]?.[j] as number))).toBeLessThan(2e-6);
    }
  }
});
