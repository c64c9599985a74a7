import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { engineTorchVersion } from "../../../lib/native/locate.js";
import { ensureLibtorch, installLibtorch, type SetupProgress } from "../../../lib/setup/install.js";
import { makeFakePython, type PipBehaviour } from "../../support/fake-python.js";
import { makeFakeTorch } from "../../support/fake-torch.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();
const version = engineTorchVersion();

function fresh(name: string, behaviour: PipBehaviour, more: NodeJS.ProcessEnv = {}) {
  const python = makeFakePython(temporary.path(name));
  const cache = temporary.path(name, "cache");
  return { ...python, cache, env: python.env(behaviour, { PEFT_TRAIN_CACHE: cache, ...more }) };
}

function tree(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

describe("installLibtorch", () => {
  it("keeps of the wheel what compiling and CPU work need, and nothing else in the cache", async () => {
    const { env, cache, calls } = fresh("whole", "full-wheel");
    const phases: SetupProgress["phase"][] = [];
    const folder = await installLibtorch({
      env,
      onProgress: (progress) => {
        if (progress.phase !== phases.at(-1)) phases.push(progress.phase);
        expect(progress.bytes).toBeLessThanOrEqual(progress.totalBytes);
      },
    });
    expect(folder).toBe(join(cache, `libtorch-${version}-cpu`));
    expect(readdirSync(cache)).toEqual([`libtorch-${version}-cpu`]);
    expect(tree(folder)).toEqual([
      "nvidia/cu13/lib/libcudart.so.13",
      "nvidia/cu13/lib/libcupti.so.13",
      `torch-${version}.dist-info/METADATA`,
      "torch/include/a.h",
      "torch/lib/libc10.so",
      "torch/lib/libgomp.so.1",
      "torch/lib/libtorch_cpu.so",
      "torch/version.py",
    ]);
    expect(phases).toEqual(["fetch", "prune", "done"]);
    const commands = calls();
    expect(commands.map(({ args }) => args.filter((arg) => arg.includes("==")))).toEqual([
      [`torch==${version}`],
      ["nvidia-cuda-runtime==13.0.*", "nvidia-cuda-cupti==13.0.*"],
    ]);
    for (const { args, TMPDIR } of commands) {
      expect(args).toContain("--no-deps");
      expect(TMPDIR.startsWith(cache)).toBe(true); // what pip leaves when it is killed goes with our folder
    }
  });

  it("asks for no CUDA library where the wheel is linked to none", async () => {
    const { env, calls } = fresh("cpu-wheel", "cpu-wheel");
    expect(existsSync(join(await installLibtorch({ env }), "nvidia"))).toBe(false);
    expect(calls()).toHaveLength(1);
  });

  it("installs all of it, with dependencies, for CUDA", async () => {
    const { env, calls } = fresh("cuda", "full-wheel");
    const folder = await installLibtorch({ env, device: "cuda" });
    expect(folder.endsWith("-cuda")).toBe(true);
    expect(existsSync(join(folder, "torch", "lib", "libtorch_cuda.so"))).toBe(true);
    expect(calls()).toHaveLength(1);
    expect(calls()[0]?.args).not.toContain("--no-deps");
  });

  it("fetches once: the second time it is there, and with force it is replaced", async () => {
    const { env, calls, cache } = fresh("again", "cpu-wheel");
    const folder = await installLibtorch({ env });
    expect(await installLibtorch({ env })).toBe(folder);
    expect(calls()).toHaveLength(1);
    writeFileSync(join(folder, "mark"), "");
    await installLibtorch({ env, force: true });
    expect(calls()).toHaveLength(2);
    expect(existsSync(join(folder, "mark"))).toBe(false);
    expect(readdirSync(cache)).toHaveLength(1);
  });

  it("replaces a folder that lost its library", async () => {
    const { env, cache } = fresh("damaged", "cpu-wheel");
    mkdirSync(join(cache, `libtorch-${version}-cpu`, "torch"), { recursive: true });
    const folder = await installLibtorch({ env });
    expect(existsSync(join(folder, "torch", "lib", "libtorch_cpu.so"))).toBe(true);
  });

  it("lets the second of two at once wait, and find it", async () => {
    const { env, calls, cache } = fresh("two", "full-wheel", { FAKE_PIP_DELAY: "600" });
    // Which of them asks first is not said.
    const phases: [Set<string>, Set<string>] = [new Set(), new Set()];
    const [first, second] = await Promise.all(
      phases.map((seen) => installLibtorch({ env, onProgress: ({ phase }) => seen.add(phase) })),
    );
    expect(second).toBe(first);
    expect(calls()).toHaveLength(2); // torch, then CUDA's two packages
    expect(phases.map((seen) => [...seen].join()).sort()).toEqual(["fetch,prune,done", "wait"]);
    expect(readdirSync(cache)).toHaveLength(1);
  });

  it("removes what a killed process left, and takes over its lock", async () => {
    const { env, cache } = fresh("left", "cpu-wheel");
    const name = `libtorch-${version}-cpu`;
    mkdirSync(join(cache, `.${name}.999999.tmp`, "tree"), { recursive: true });
    // No process has this id: Linux's limit is 2^22.
    writeFileSync(join(cache, `${name}.lock`), JSON.stringify({ pid: 2 ** 22 + 1, host: hostname() }));
    await installLibtorch({ env });
    expect(readdirSync(cache)).toEqual([name]);
  });

  it.each<[PipBehaviour, string, RegExp, RegExp]>([
    ["no-match", "DOWNLOAD_FAILED", /No matching distribution found for torch==/, /Python 3\.10 or newer/],
    ["network", "DOWNLOAD_FAILED", /ERROR: Connection broken: timed out$/, /pip config list/],
    ["unreachable", "DOWNLOAD_FAILED", /the package index does not answer$/, /Check the network/],
    ["disk-full", "OUTPUT_UNWRITABLE", /Not enough space.*No space left/, /another disk/],
    ["nothing", "DOWNLOAD_FAILED", /has no libtorch for cpu/, /PEFT_TRAIN_LIBTORCH/],
  ])("leaves nothing when pip ends with %s", async (behaviour, code, message, hint) => {
    const { env, cache } = fresh(`fails-${behaviour}`, behaviour);
    await expect(installLibtorch({ env })).rejects.toMatchObject({
      name: "PeftTrainError",
      code,
      message: expect.stringMatching(message),
      hint: expect.stringMatching(hint),
    });
    expect(readdirSync(cache)).toEqual([]);
  });

  it("runs the Python that PEFT_TRAIN_PYTHON names", async () => {
    const { env } = fresh("named", "cpu-wheel");
    const python = join(temporary.path("named"), "bin", "python3");
    await installLibtorch({ env: { ...env, PATH: temporary.path("no-python"), PEFT_TRAIN_PYTHON: python } });
  });

  it("says which variable to set when the cache cannot be written", async () => {
    const { env, cache, calls } = fresh("unwritable", "full-wheel");
    writeFileSync(cache, "a file in its place"); // permissions would not stop root
    await expect(installLibtorch({ env })).rejects.toMatchObject({
      code: "OUTPUT_UNWRITABLE",
      message: expect.stringContaining(cache),
      hint: expect.stringContaining("PEFT_TRAIN_CACHE"),
    });
    expect(calls()).toEqual([]);
  });

  it("stops pip and removes everything when it is aborted", async () => {
    const { env, cache, calls } = fresh("aborted", "hang");
    const controller = new AbortController();
    const running = installLibtorch({ env, signal: controller.signal });
    await expect.poll(() => calls().length, { timeout: 10_000 }).toBe(1);
    controller.abort();
    await expect(running).rejects.toMatchObject({ code: "ABORTED" });
    expect(readdirSync(cache)).toEqual([]);
  });
});

describe("ensureLibtorch", () => {
  it("takes what is there before it fetches", async () => {
    const { env, calls } = fresh("there", "full-wheel");
    const torch = makeFakeTorch(temporary.path("there", "mine", "torch"), { version });
    expect(await ensureLibtorch({ env: { ...env, PEFT_TRAIN_LIBTORCH: torch } })).toBe(
      temporary.path("there", "mine"),
    );
    expect(calls()).toEqual([]);
  });

  it("does not put something else in place of what the user named", async () => {
    const { env, calls } = fresh("named-wrong", "full-wheel", { PEFT_TRAIN_LIBTORCH: "/nowhere" });
    await expect(ensureLibtorch({ env })).rejects.toMatchObject({ code: "LIBTORCH_MISSING" });
    expect(calls()).toEqual([]);
  });

  it("fetches where only an unfit version is there", async () => {
    const { env, cache } = fresh("unfit", "cpu-wheel", { VIRTUAL_ENV: temporary.path("unfit", "venv") });
    makeFakeTorch(temporary.path("unfit", "venv/lib/python3.12/site-packages/torch"), { version: "2.1.0" });
    expect(await ensureLibtorch({ env })).toBe(join(cache, `libtorch-${version}-cpu`));
  });
});
