import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const lib = fileURLToPath(new URL("../../lib", import.meta.url));
/** Whoever stands higher may import what stands lower; docs/architecture.md says why. */
const LAYERS: readonly (readonly string[])[] = [
  ["cli"],
  ["doctor"],
  ["index.ts"],
  ["merge", "export", "inspect"],
  [
    "train",
    "report",
    "encoder.ts",
    "encoder-options.ts",
    "encoding",
    "search.ts",
    "embed.ts",
    "model-tokenizer.ts",
    "quantize.ts",
  ],
  ["adapter"],
  ["model"],
  ["native", "setup", "hub"],
  ["data", "metrics", "tracking", "transfer", "option-names.ts"],
  ["errors.ts", "format.ts", "version.ts"],
];

function layerOf(file: string): number {
  const top = relative(lib, file).split("/")[0] as string;
  const layer = LAYERS.findIndex((names) => names.includes(top));
  if (layer < 0) throw new Error(`${top} is in no layer`);
  return layer;
}

/** Every import of our own, of types too, as [from, to]. */
function imports(): [from: string, to: string][] {
  const files = readdirSync(lib, { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".ts"),
  );
  return files.flatMap((name) => {
    const file = join(lib, name);
    const found = readFileSync(file, "utf8").matchAll(/(?:from |import\()"(\.[^"]+)\.js"/g);
    return [...found].map((match): [string, string] => [file, join(dirname(file), `${match[1]}.ts`)]);
  });
}

it("imports go one way", () => {
  // Types of the native interface are plain data, which the readers of data give and take.
  const upward = imports()
    .filter(([from, to]) => layerOf(from) > layerOf(to) && !to.endsWith("native/types.ts"))
    .map((pair) => pair.map((file) => relative(lib, file)).join(" -> "));
  expect(upward).toEqual([]);
});

it("what the command line shows knows no command", () => {
  const wrong = imports()
    .map((pair) => pair.map((file) => relative(join(lib, "cli"), file)) as [string, string])
    .filter(([from, to]) => from.startsWith("display/") && /^(commands|run)\//.test(to));
  expect(wrong).toEqual([]);
});

it("only the command line draws bars and tables, and one file loads the engine", () => {
  const using = (pattern: RegExp) =>
    readdirSync(lib, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts") && pattern.test(readFileSync(join(lib, name), "utf8")))
      .sort();
  expect(using(/from "(cli-progress|cli-table3|yargs)"/).filter((name) => !name.startsWith("cli/"))).toEqual(
    [],
  );
  expect(using(/"node-gyp-build"/)).toEqual(["native/load.ts"]);
});
