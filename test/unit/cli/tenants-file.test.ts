import { writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { readTenants } from "../../../lib/cli/run/tenants-file.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();
const file = temporary.path("tenants.yaml");
const SHARED = "model_name_or_path: model\nlearning_rate: 5e-3\nreport: false\n";

function read(text: string, flags: Record<string, unknown> = {}) {
  writeFileSync(file, text);
  return readTenants(file, flags);
}

describe("a file of tenants", () => {
  it("gives each the shared options, its own, and flags before either", () => {
    const text = `${SHARED}output_dir: out\ntenants:\n  a: { dataset_name: a.csv, seed: 7 }\n  b:\n    dataset_name: b.csv\n    output_dir: other\n`;
    const { a, b } = read(text, { learning_rate: "1e-3" });
    expect(a).toMatchObject({
      datasetName: "a.csv",
      seed: 7,
      learningRate: 1e-3,
      outputDir: "out/a",
      report: false,
    });
    expect(b).toMatchObject({ datasetName: "b.csv", seed: 42, learningRate: 1e-3, outputDir: "other" });
    expect(read(text, { output_dir: "new" }).b).toMatchObject({ outputDir: "new/b" });
  });

  it("is refused by file, line and tenant", () => {
    for (const [text, message] of [
      [SHARED, /tenants\.yaml: expected tenants: with a name/],
      [`${SHARED}tenants: []\n`, /tenants\.yaml:4: expected tenants: with a name/],
      [`${SHARED}tenants:\n  a: 3\n`, /tenants\.yaml:5: a: expected names of options/],
      [`${SHARED}tenants:\n  a: { dataset_name: x.csv }\n`, /tenants\.yaml:5: a: output_dir is required/],
      [
        `${SHARED}output_dir: o\ntenants:\n  a: { dataset_name: x.csv, seed: no }\n`,
        /tenants\.yaml:6: seed=no: expected/,
      ],
      [`${SHARED}output_dir: o\ntenants:\n  a:\n    lora_rr: 4\n`, /tenants\.yaml:7: unknown option lora_rr/],
      [
        `${SHARED}output_dir: o\ntenants:\n  a/b: { dataset_name: x.csv }\n`,
        /tenants\.yaml:6: "a\/b" is no name for a folder/,
      ],
    ] as const) {
      expect(() => read(text), text).toThrow(message);
    }
  });
});
