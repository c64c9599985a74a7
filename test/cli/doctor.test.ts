import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Finding } from "../../lib/doctor/finding.js";
import { engineTorchVersion, locateLibtorch } from "../../lib/native/locate.js";
import { type Outcome, runCli } from "../support/cli.js";
import { makeFakeTorch } from "../support/fake-torch.js";
import { buildLibrary } from "../support/shared-library.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const temporary = temporaryFolder();
const version = engineTorchVersion();

/** Nothing is found but what a test puts there. */
function bare(name: string, more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const unset = { PEFT_TRAIN_LIBTORCH: "", VIRTUAL_ENV: "", PATH: temporary.path(name, "bin") };
  return { ...unset, PEFT_TRAIN_CACHE: temporary.path(name, "cache"), ...more };
}

async function examined(
  env: NodeJS.ProcessEnv,
): Promise<{ outcome: Outcome; check: (name: string) => Finding }> {
  const outcome = await runCli(["doctor", "--json"], { env });
  const { checks } = JSON.parse(outcome.stdout) as { checks: Finding[] };
  const check = (name: string): Finding => {
    const found = checks.find((each) => each.check === name);
    if (found === undefined) throw new Error(`no ${name} in ${outcome.stdout}`);
    return found;
  };
  return { outcome, check };
}

// Each case starts up to six processes.
describe("peft-train doctor", { timeout: 180_000 }, () => {
  it("trains one step where everything is there", async () => {
    const { outcome, check } = await examined({});
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    expect(check("train.cpu")).toMatchObject({
      status: "ok",
      details: { pairs: 32, loss: expect.closeTo(0.27, 1) },
    });
    expect(check("load").details).toMatchObject({ torchVersion: version });
  });

  it("names the kernels that there are where PEFT_TRAIN_CPU_KERNELS names others", async () => {
    const { outcome, check } = await examined({ PEFT_TRAIN_CPU_KERNELS: "avx3" });
    expect(outcome.code).toBe(1);
    expect(check("load")).toMatchObject({
      status: "problem",
      found: "PEFT_TRAIN_CPU_KERNELS=avx3 names no kernels that run here",
      next: "unset PEFT_TRAIN_CPU_KERNELS",
    });
    const texts = temporary.path("texts.txt");
    writeFileSync(texts, "a text\n");
    const encode = ["encode", texts, "--model=data/encoder", `--output=${temporary.path("vectors.npy")}`];
    const { code, stderr } = await runCli(encode, { env: { PEFT_TRAIN_CPU_KERNELS: "avx3" } });
    expect(code).toBe(2);
    expect(stderr).toMatch(/^error: PEFT_TRAIN_CPU_KERNELS=avx3 .*\nhint: Take one of .*generic/m);
  });

  it("draws a table and, without libtorch, says how to get it", async () => {
    const { code, stdout } = await runCli(["doctor"], { env: bare("nothing") });
    expect(code).toBe(1);
    expect(stdout).toMatch(/│ libtorch +│ problem │ No libtorch/);
    expect(stdout).toMatch(/│ Engine +│ skipped │/);
    expect(stdout).toMatch(/│ Compiled addon +│ ok /);
    expect(stdout).toMatch(/To mend libtorch:\n {4}npx peft-train setup$/m);
    expect(stdout).toMatch(/^1 problem\.$/m);
  });

  it("says so where PEFT_TRAIN_LIBTORCH is no libtorch, or one of another version", async () => {
    const folder = temporary.path("not-one");
    mkdirSync(folder);
    const none = await examined(bare("none", { PEFT_TRAIN_LIBTORCH: folder }));
    expect(none.outcome.code).toBe(1);
    expect(none.check("libtorch")).toMatchObject({
      status: "problem",
      found: expect.stringContaining(`PEFT_TRAIN_LIBTORCH=${folder}`),
      next: expect.stringContaining("npx peft-train setup"),
    });
    const old = makeFakeTorch(temporary.path("old", "torch"), { version: "2.9.1" });
    const other = await examined(bare("other", { PEFT_TRAIN_LIBTORCH: old }));
    expect(other.check("libtorch").found).toMatch(/libtorch 2\.9\.1; the engine was built for/);
  });

  it("makes a line of a libtorch that crashes when it is loaded", async () => {
    const torch = makeFakeTorch(temporary.path("crash", "torch"), { version });
    const source = "#include <stdlib.h>\n__attribute__((constructor)) static void start(void) { abort(); }";
    buildLibrary(join(torch, "lib", "libtorch_cpu.so"), source);
    const { outcome, check } = await examined(bare("crash", { PEFT_TRAIN_LIBTORCH: torch }));
    expect(outcome.code).toBe(1);
    expect(check("load")).toMatchObject({
      status: "problem",
      found: expect.stringContaining("crashed with SIGABRT"),
      next: expect.stringContaining("npx peft-train setup"),
    });
    expect(check("train.cpu").status).toBe("skipped");
  });

  it("goes on with the CPU where CUDA's libraries are missing, and says which", async () => {
    const real = locateLibtorch().folder;
    const torch = makeFakeTorch(temporary.path("half", "torch"), { version, cuda: "13.0", libraries: [] });
    for (const name of readdirSync(join(real, "torch", "lib"))) {
      if (name !== "libtorch.so" && !name.startsWith("libtorch_cuda")) {
        symlinkSync(join(real, "torch", "lib", name), join(torch, "lib", name));
      }
    }
    symlinkSync(join(real, "nvidia"), temporary.path("half", "nvidia"));
    // As in a CUDA wheel whose packages beside it were not installed.
    const missing = buildLibrary(temporary.path("half", "libcudart.so.13"), "", [
      "-Wl,-soname,libcudart.so.99",
    ]);
    buildLibrary(join(torch, "lib", "libtorch_cuda.so"), "");
    buildLibrary(join(torch, "lib", "libtorch.so"), "", ["-Wl,--no-as-needed", missing]);
    const { outcome, check } = await examined({ PEFT_TRAIN_LIBTORCH: torch });
    expect(outcome.code).toBe(1);
    expect(check("load")).toMatchObject({
      status: "problem",
      found: expect.stringMatching(/CPU alone.*libcudart\.so\.99: cannot open shared object file/),
      next: "unset PEFT_TRAIN_LIBTORCH && npx peft-train setup --force --device cuda",
    });
    expect(check("train.cpu").status).toBe("ok");
  });
});
