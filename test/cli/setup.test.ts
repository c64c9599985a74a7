import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { outcome, runCli, startCli } from "../support/cli.js";
import { makeFakePython, type PipBehaviour } from "../support/fake-python.js";
import { skips } from "../support/skips.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const temporary = temporaryFolder();

function fresh(name: string, behaviour: PipBehaviour) {
  const python = makeFakePython(temporary.path(name));
  const cache = temporary.path(name, "cache");
  const unset = { PEFT_TRAIN_LIBTORCH: "", VIRTUAL_ENV: "", PEFT_TRAIN_PYTHON: "" };
  return { ...python, cache, env: { ...unset, ...python.env(behaviour, { PEFT_TRAIN_CACHE: cache }) } };
}

describe("peft-train setup", () => {
  it("fetches once, in plain lines where there is no terminal", async () => {
    const { env, cache } = fresh("plain", "full-wheel");
    const first = await runCli(["setup"], { env });
    expect(first).toMatchObject({ code: 0, stdout: expect.stringMatching(/^libtorch \S+ is ready in /) });
    expect(first.stderr).toMatch(/^Fetching libtorch .*\nKeeping what is needed\.\nlibtorch .*\n$/);
    expect(readdirSync(cache)).toHaveLength(1);
    const second = await runCli(["setup"], { env });
    expect(second).toMatchObject({
      code: 0,
      stderr: "",
      stdout: expect.stringMatching(/nothing to do\.\n$/),
    });
  });

  // Where there is a GPU the command is right to fetch.
  it.skipIf(skips(existsSync("/dev/nvidia0"), "there is a GPU, for which the command fetches"))(
    "looks for a GPU before a command fetches gigabytes",
    async () => {
      const { env, cache, calls } = fresh("no-gpu", "full-wheel");
      const input = temporary.path("no-gpu", "texts.txt");
      writeFileSync(input, "how do I learn to swim\n");
      const args = ["--model_name_or_path=data/encoder", `--input=${input}`, `--output=${input}.npy`];
      const refused = await runCli(["encode", ...args, "--device=cuda"], { env });
      expect(refused.stderr).toMatch(/^error: --device=cuda: found no NVIDIA GPU/);
      expect(refused.code).toBe(1);
      expect(calls()).toEqual([]);
      expect(existsSync(cache)).toBe(false);
    },
  );

  it("says what it would do, and does nothing", async () => {
    const { env, cache, calls } = fresh("dry", "full-wheel");
    const { code, stdout } = await runCli(["setup", "--dry_run"], { env });
    expect(code).toBe(0);
    expect(stdout).toMatch(/Would run: python3 -m pip install .* torch==\d/);
    expect(calls()).toEqual([]);
    expect(existsSync(cache)).toBe(false);
  });

  it("puts it into --dir and says how it is found there", async () => {
    const { env } = fresh("dir", "cpu-wheel");
    const dir = temporary.path("dir", "elsewhere");
    const { code, stdout } = await runCli(["setup", "--dir", dir], { env });
    expect(code).toBe(0);
    expect(stdout).toContain(`export PEFT_TRAIN_CACHE=${dir}`);
    const found = await runCli(["setup"], { env: { ...env, PEFT_TRAIN_CACHE: dir } });
    expect(found.stdout).toMatch(/nothing to do/);
  });

  it("removes what it has fetched, and nothing else", async () => {
    const { env, cache } = fresh("remove", "cpu-wheel");
    await runCli(["setup"], { env });
    mkdirSync(join(cache, "kernels"));
    const would = await runCli(["setup", "--remove", "--dry-run"], { env });
    expect(would.stdout).toMatch(/^Would remove \S+\/libtorch-\S+-cpu \(0\.0 GB\)\n$/);
    expect(readdirSync(cache)).toHaveLength(2);
    const removed = await runCli(["setup", "--remove"], { env });
    expect(removed).toMatchObject({ code: 0, stdout: expect.stringMatching(/^Removed /) });
    expect(readdirSync(cache)).toEqual(["kernels"]);
    expect((await runCli(["setup", "--remove"], { env })).stdout).toMatch(/^There is no libtorch/);
  });

  it.each([
    [["--torch", "2.9"], /^error: --torch=2\.9: expected a version from 2\.11 to 2\.15$/m, 2],
    [["--torch", "2.11"], /^error: --torch=2\.11: the engine was compiled for libtorch/m, 1],
    [["--mirror", "/nowhere"], /^error: --mirror=\/nowhere: there is no such file or folder$/m, 1],
    [["--remove", "--mirror", "x"], /^error: --remove does not go with --mirror$/m, 2],
    [["--device", "tpu"], /^error: .*device/m, 2],
  ])("%j is refused in one line", async (args, message, status) => {
    const { env, calls } = fresh("refused", "full-wheel");
    const { code, stderr } = await runCli(["setup", ...args], { env });
    expect(stderr).toMatch(message);
    expect(code).toBe(status);
    expect(calls()).toEqual([]);
  });

  it("ends with one error line when pip fails", async () => {
    const { env, cache } = fresh("fails", "network");
    const { code, stderr } = await runCli(["setup"], { env });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: pip could not fetch libtorch: ERROR: Connection broken: timed out$/m);
    expect(readdirSync(cache)).toEqual([]);
  });

  it.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("leaves nothing after %s", async (signal, status) => {
    const { env, cache, calls } = fresh(signal, "hang");
    const child = startCli(["setup"], { env });
    const ended = outcome(child);
    await expect.poll(() => calls().length, { timeout: 20_000 }).toBe(1);
    child.kill(signal);
    const { code, stderr } = await ended;
    expect(code).toBe(status);
    expect(stderr).toMatch(/^error: Stopped while fetching libtorch$/m);
    expect(readdirSync(cache)).toEqual([]);
  });
});
