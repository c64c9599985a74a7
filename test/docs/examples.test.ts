import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { runScript } from "../support/script.js";
import { temporaryFolder } from "../support/temporary-folder.js";

// The TypeScript of the documentation runs as it stands, but for the names of its files, which are those of the small encoder and pairs
// that come along.
const temporary = temporaryFolder();
const path = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url));

function examples(file: string): string[] {
  return [...readFileSync(path(file), "utf8").matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(
    ([, code]) => code as string,
  );
}

/** With files that are here, and in words that Node 20 knows. */
function runnable(code: string, index: number): string {
  const pairs = readFileSync(path("data/pairs/train.csv"), "utf8").split("\n").slice(0, 200);
  writeFileSync(temporary.path("train.csv"), `${pairs.join("\n")}\n`);
  const held = [...code.matchAll(/await using (\w+) =/g)].map(([, name]) => `await ${name}.close();`);
  return `${code
    .replaceAll('"models/e5-small-v2"', JSON.stringify(path("data/encoder")))
    .replaceAll('"train.csv"', JSON.stringify(temporary.path("train.csv")))
    .replaceAll('"out"', JSON.stringify(temporary.path(`out-${index}`)))
    .replaceAll("await using ", "const ")}\n${held.join("\n")}`;
}

describe("README.md", () => {
  it.each(examples("README.md").map((code, i) => [i + 1, code] as const))(
    "example %i runs",
    async (index, code) => {
      const lastly = `console.log(vectors.length, vectors[0].length, cosines.length);`;
      const {
        code: exit,
        stdout,
        stderr,
      } = await runScript(`${runnable(code, index)}\n${lastly}`, [], path("."));
      expect([exit, stderr]).toEqual([0, ""]);
      expect(stdout).toMatch(/^\d+ 0\.\d+$/m); // the losses that it prints
      expect(stdout).toMatch(/^1 128 1$/m);
    },
    180_000,
  );

  it("has an example", () => {
    expect(examples("README.md")).toHaveLength(1);
  });
});

describe("docs/service.md", () => {
  it("example runs, with the adapter that the README's has trained", async () => {
    const [code = ""] = examples("docs/service.md");
    const prelude = `import { Encoder } from "peft-train";
      const texts = ["how do I swim", "join WAV files"]; const request = { signal: AbortSignal.timeout(100_000) };`;
    const adapter = JSON.stringify(temporary.path("out-1"));
    const body = runnable(code, 1).replaceAll('"adapters/support"', adapter);
    const lastly = "console.log(vectors.length, vectors[1].length); await encoder.close();";
    const outcome = await runScript(`${prelude}\n${body}\n${lastly}`, [], path("."));
    expect(outcome).toEqual({ code: 0, signal: null, stdout: "2 128\n", stderr: "" });
  });
});
