import { existsSync, readdirSync } from "node:fs";
import { beforeAll, expect } from "vitest";
import { type Outcome, runCli } from "./cli.js";
import { writePairs } from "./pairs-file.js";
import { temporaryFolder } from "./temporary-folder.js";
import { writeTinyModel } from "./tiny-model.js";

/**
 * A folder with `model` and `train.csv` to run commands in that must refuse something. Whatever is wrong has to be found before libtorch is
 * looked for: naming none would otherwise be the error.
 */
export function refusals() {
  const temporary = temporaryFolder();
  const env = { PEFT_TRAIN_LIBTORCH: "/nonexistent/libtorch", HF_HUB_OFFLINE: "1", HF_TOKEN: "" };
  beforeAll(() => {
    writeTinyModel(temporary.path("model"));
    writePairs(temporary.path("train.csv"), 20);
  });
  return {
    temporary,
    runHere: (args: string[]): Promise<Outcome> => runCli(args, { cwd: temporary.path(), env }),

    trainArgs(changes: Record<string, string> = {}): string[] {
      const flags = {
        model_name_or_path: "model",
        dataset_name: "train.csv",
        output_dir: "out",
        ...changes,
      };
      return Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
    },

    /** One line `error: ...`, one line `hint: ...` or none, nothing on stdout, and nothing left behind. */
    expectRefusal(outcome: Outcome, code: number, message: RegExp, hint?: RegExp): void {
      const lines = outcome.stderr.trimEnd().split("\n");
      const errors = lines.filter((line) => line.startsWith("error: "));
      expect(errors, outcome.stderr).toHaveLength(1);
      expect(errors[0]).toMatch(message);
      if (hint !== undefined) expect(outcome.stderr).toMatch(hint);
      const others = lines.filter((line) => !/^(error: |hint: |Reading )/.test(line));
      expect(others).toEqual([]);
      expect(outcome.stdout).toBe("");
      expect(outcome.code).toBe(code);
      expect(existsSync(temporary.path("out"))).toBe(false);
      expect(readdirSync(temporary.path()).filter((name) => name.startsWith("."))).toEqual([]);
    },
  };
}
