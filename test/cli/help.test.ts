import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type OptionName, TRAIN_OPTIONS, UNAVAILABLE_OPTIONS } from "../../lib/train/options/option-table.js";
import { runCli } from "../support/cli.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const temporary = temporaryFolder();
const root = new URL("../../", import.meta.url).href;

describe("--help", () => {
  it("shows every flag of training with its default, by groups, and no flag that is not there yet", async () => {
    const { code, stdout, stderr } = await runCli(["--help"]);
    expect([code, stderr]).toEqual([0, ""]);
    for (const name of Object.keys(TRAIN_OPTIONS) as OptionName[]) {
      expect(stdout, name).toMatch(new RegExp(`^  --${name}( |$)`, "m"));
    }
    for (const name of Object.keys(UNAVAILABLE_OPTIONS)) expect(stdout).not.toContain(`--${name}`);
    for (const group of ["Model:", "Data:", "LoRA:", "Training:", "Output:", "Machine:"]) {
      expect(stdout.split("\n")).toContain(group);
    }
    expect(stdout).toMatch(/^ {2}--lora_r +Rank \[8\]$/m);
    const tooLong = stdout
      .split("\n")
      .filter((line) => line.length > 110 && !line.includes("npx peft-train"));
    expect(tooLong).toEqual([]);
  });

  it("is what help gives too, with the name of a command", async () => {
    for (const command of [[], ["encode"]]) {
      const [word, flag] = [await runCli(["help", ...command]), await runCli([...command, "--help"])];
      expect(word).toEqual(flag);
    }
  });

  it("loads nothing but the option table: no library, no engine, no data reader", async () => {
    await runCli(["--help"], { env: { NODE_V8_COVERAGE: temporary.path() } });
    const [report = ""] = readdirSync(temporary.path());
    const { result } = JSON.parse(readFileSync(temporary.path(report), "utf8")) as {
      result: { url: string }[];
    };
    const loaded = result.map(({ url }) => url).filter((url) => url.startsWith("file:"));
    expect(loaded.length).toBeGreaterThan(3);
    expect(loaded.filter((url) => !url.startsWith(`${root}dist/`) && !url.startsWith(`${root}bin/`))).toEqual(
      [],
    );
    expect(loaded.filter((url) => /\/(native|setup|model)\/|encoder|run-|csv|tokenizer/.test(url))).toEqual(
      [],
    );
  });

  it("of every command that takes a model says its two names", async () => {
    const commands = ["train", "train-many", "verify-resume", "eval", "encode", "search"];
    commands.push("quantize", "merge", "export", "convert", "diff");
    for (const command of commands) {
      const { stdout } = await runCli([command, "--help"]);
      const words = stdout.replaceAll(/\s+/g, " ");
      expect(words, command).toMatch(/ --model_name_or_path [^[]*?; also --model /);
    }
  });

  for (const [command, flag] of [
    ["train", "--learning_rate"],
    ["demo", "--output_dir"],
    ["eval", "--adapter"],
    ["encode", "--column"],
    ["prepare", "--min_chars"],
    ["report", "--out"],
    ["setup", "--dry_run"],
  ] as const) {
    it(`of ${command} shows its own flags`, async () => {
      const { code, stdout } = await runCli([command, "--help"]);
      expect(code).toBe(0);
      expect(stdout).toMatch(new RegExp(`^Usage: npx peft-train ${command} `));
      expect(stdout).toContain(`  ${flag} `);
    });
  }
});

it("--version is the version of package.json", async () => {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  expect(await runCli(["--version"])).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: "" });
});
