import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { runCli } from "../support/cli.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const temporary = temporaryFolder();
const adapters = fileURLToPath(new URL("../fixtures/combine/adapters", import.meta.url));
const combine = (...args: string[]) =>
  runCli(["combine", ...args], {
    cwd: adapters,
    env: { PEFT_TRAIN_LIBTORCH: "/nonexistent/libtorch" }, // nothing here needs it
  });

it("combine writes the weighted sum and says so", async () => {
  const { stdout, stderr, code } = await combine(
    "first",
    "second",
    "--weights=0.7,-0.3",
    "--out",
    temporary.path("a"),
  );
  expect([stderr, code]).toEqual(["", 0]);
  expect(stdout).toMatch(/│ first +│ +0\.7 │/);
  expect(stdout).toMatch(/│ second +│ +-0\.3 │/);
  expect(stdout).toMatch(/cat: 6 modules, rank 8, [\d,]+ parameters\nexactly the weighted sum\n/);
  const config = JSON.parse(readFileSync(temporary.path("a", "adapter_config.json"), "utf8"));
  expect(config).toMatchObject({ r: 8, lora_alpha: 8, base_model_name_or_path: "tiny" });
});

it("combine takes PEFT's methods and tells what they are beside the sum", async () => {
  const out = temporary.path("b");
  const { stdout, code } = await combine("first", "second", "--combination-type", "linear", "--out", out);
  expect(code).toBe(0);
  expect(stdout).toMatch(/difference to the weighted sum: \d+\.\d %; at most \d+\.\d %, of encoder\.layer/);
  const json = await combine(
    ...[
      "first",
      "second",
      "--method=ties_svd",
      "--density=0.5",
      "--svd_rank=2",
      "--json",
      "--out",
      temporary.path("c"),
    ],
  );
  expect(JSON.parse(json.stdout)).toMatchObject({ method: "ties_svd", rank: 2, weights: [1, 1] });
  expect(JSON.parse(json.stdout).truncation_error).toBeGreaterThan(0.1);
});

it.each(["cat", "svd", "linear", "magnitude_prune_svd"])(
  "combine by %s tells a sum of zero to be zero",
  async (method) => {
    const density = method.startsWith("magnitude") ? ["--density=0.5"] : [];
    const args = [
      "first",
      "second",
      "first",
      "second",
      "--weights=0.7,1,-0.7,-1",
      `--method=${method}`,
      ...density,
    ];
    const { stdout, stderr } = await combine(...args, "--out", temporary.path(`zero-${method}`));
    expect([stderr, stdout]).toEqual([
      "",
      expect.stringContaining("exactly the weighted sum, which is zero\n"),
    ]);
    if (method.endsWith("svd")) expect(stdout).toContain("lost by the cut to that rank: 0 %\n");
    const json = await combine(...args, "--json", "--out", temporary.path(`json-${method}`));
    expect(JSON.parse(json.stdout)).toMatchObject({ norm: 0, relative_difference: 0 });
  },
);

it.each([
  [["--out=x"], /the folder of an adapter is required/],
  [["first"], /--out is required/],
  [["first", "second", "--weights=1,2", "--weights=1", "--out=x"], /--weights=1: expected 2 numbers/],
  [["first", "second", "--weights=1,a", "--out=x"], /--weights=1,a: expected 2 numbers/],
  [["first", "second", "--method=ties", "--out=x"], /ties needs a density/],
  [["first", "second", "--density=half", "--out=x"], /--density=half: expected a number/],
  [["first", "second", "--svd_rank=1.5", "--method=svd", "--out=x"], /svd_rank: expected a whole number/],
])("combine refuses %j", async (args, message) => {
  const { stderr, stdout, code } = await combine(...args);
  expect(stderr).toMatch(message);
  expect([stdout, code]).toEqual(["", 2]);
});
