import { existsSync, readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { outcome, runCli, startCli } from "../support/cli.js";
import { makeFakePython, type PipBehaviour } from "../support/fake-python.js";
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
