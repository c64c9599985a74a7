import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, it } from "vitest";
import * as library from "../../lib/index.js";
import { makeFakePython } from "../support/fake-python.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const temporary = temporaryFolder();
const read = (name: string) => readFileSync(fileURLToPath(new URL(`../../${name}`, import.meta.url)), "utf8");
let python: ReturnType<typeof makeFakePython>;

beforeAll(() => {
  python = makeFakePython(temporary.path("python"));
});

it("a program can fetch libtorch as the command does", async () => {
  const phases: string[] = [];
  const folder = await library.ensureLibtorch({
    env: python.env("cpu-wheel", { PEFT_TRAIN_CACHE: temporary.path("cache") }),
    onProgress: ({ phase }) => phases.push(phase),
  });
  expect(folder.startsWith(temporary.path("cache"))).toBe(true);
  expect(phases.at(-1)).toBe("done");
});

it("everything that the documentation imports is there", () => {
  for (const name of ["README.md", "docs/training.md", "docs/merge-and-export.md"]) {
    const imports = [...read(name).matchAll(/import \{ ([^}]*) \} from "peft-train"/g)];
    expect(imports, name).not.toHaveLength(0);
    for (const item of imports.flatMap(([, items = ""]) => items.split(", "))) {
      expect(library, name).toHaveProperty(item);
    }
  }
});
