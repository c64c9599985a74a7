import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, it } from "vitest";
import { outcome, startCli } from "../support/cli.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  // Minutes of work, were it not interrupted.
  writeFileSync(temporary.path("texts.txt"), "a b c d e f g h\n".repeat(1_000_000));
});

const leftOvers = () => readdirSync(temporary.path()).filter((name) => name.endsWith(".tmp"));
const partial = (end = "") => existsSync(temporary.path(`vectors.npy.partial${end}`));

for (const [presses, code] of [
  [1, 130],
  [2, 130],
] as const) {
  it(`encode leaves nothing but what it can go on from after Ctrl-C, pressed ${presses} times`, async () => {
    for (const end of ["", ".json"]) rmSync(temporary.path(`vectors.npy.partial${end}`), { force: true });
    const args = ["encode", "--model_name_or_path=model", "--input=texts.txt", "--output=vectors.npy"];
    const child = startCli(args, { cwd: temporary.path() });
    const ended = outcome(child);
    while (!partial() && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 10));
    child.kill("SIGINT");
    if (presses > 1) {
      await once(child.stderr, "data"); // "stopping": the first has been heard
      child.kill("SIGINT");
    }
    const result = await ended;
    expect(result.code, result.stderr).toBe(code);
    expect(leftOvers()).toEqual([]);
    expect(existsSync(temporary.path("vectors.npy"))).toBe(false);
    // Either nothing, or rows with a checkpoint.
    expect(partial()).toBe(partial(".json"));
  });
}

it("a file that is not committed goes when the process exits, however it does", async () => {
  const module = fileURLToPath(new URL("../../dist/data/atomic-file.js", import.meta.url));
  for (const end of ["process.exit(3)", 'throw new Error("crash")']) {
    const program = `
      import { readdirSync } from "node:fs";
      import { AtomicFile } from ${JSON.stringify(module)};
      const whole = await AtomicFile.create("whole.npy");
      const half = await AtomicFile.create("half.npy");
      await half.write(new Uint8Array(1_000_000));
      await whole.write("whole");
      await whole.commit();
      if (readdirSync(".").filter((name) => name.endsWith(".tmp")).length !== 1) process.exit(9);
      ${end};
    `;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], { cwd: temporary.path() });
    const { code, stderr } = await outcome(child);
    expect(code, stderr).toBe(end.startsWith("throw") ? 1 : 3);
    expect(leftOvers()).toEqual([]);
    expect(existsSync(temporary.path("half.npy"))).toBe(false);
    expect(existsSync(temporary.path("whole.npy"))).toBe(true);
  }
});
