import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { engineTorchVersion } from "../../../lib/native/locate.js";
import { type InstallOptions, installLibtorch } from "../../../lib/setup/install.js";
import { cutting, FakeIndex, FakeProxy } from "../../support/fake-index.js";
import { makeFakePython } from "../../support/fake-python.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { type FakeWheel, makeTorchWheels, makeWheel, writeWheels } from "../../support/wheel.js";

const temporary = temporaryFolder();
const version = engineTorchVersion();
const wheels = makeTorchWheels(version);
const torch = wheels[0] as FakeWheel;
const NAME = `libtorch-${version}-cpu`;

/** A machine without Python. */
function bare(name: string, more: NodeJS.ProcessEnv = {}) {
  mkdirSync(temporary.path(name), { recursive: true });
  const cache = temporary.path(name, "cache");
  return { cache, env: { PATH: temporary.path(name), PEFT_TRAIN_CACHE: cache, ...more } };
}

const install = (options: InstallOptions): Promise<string> => installLibtorch({ wheels, ...options });

function tree(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

const KEPT = [
  "nvidia/cu13/lib/libcudart.so.13",
  "nvidia/cu13/lib/libcupti.so.13",
  `torch-${version}.dist-info/METADATA`,
  "torch/include/a.h",
  "torch/lib/libc10.so",
  "torch/lib/libtorch_cpu.so",
  "torch/version.py",
];

describe("from an index, without pip", () => {
  it.each(["json", "html", "bare"] as const)("by its %s pages, keeping what the CPU needs", async (pages) => {
    await using index = await FakeIndex.start(wheels, { pages });
    const { env, cache } = bare(`index-${pages}`);
    const notes: string[] = [];
    const sources = new Set<string>();
    const folder = await install({
      ...{ env, mirror: index.address },
      onNote: (note) => notes.push(note),
      onProgress: ({ source, bytes, totalBytes }) => {
        sources.add(source);
        expect(bytes).toBeLessThanOrEqual(totalBytes);
      },
    });
    expect(tree(folder)).toEqual(KEPT);
    expect(readdirSync(cache)).toEqual([NAME]);
    expect(notes).toEqual(["Without pip: there is no python3."]);
    expect([...sources]).toEqual([new URL(index.address).host]);
  });

  it("for CUDA keeps every library", async () => {
    await using index = await FakeIndex.start(wheels);
    const { env } = bare("cuda");
    const gpu = { present: false, devices: [] };
    const folder = await install({ env, mirror: index.address, device: "cuda", gpu });
    expect(tree(folder)).toEqual([...KEPT, "torch/lib/libtorch.so", "torch/lib/libtorch_cuda.so"].sort());
  });

  it("goes on where the connection was cut", async () => {
    await using index = await FakeIndex.start([torch, ...wheels.slice(1)], { fault: cutting(2, 150) });
    const { env } = bare("cut");
    expect(tree(await install({ env, mirror: index.address }))).toEqual(KEPT);
    const ranges = index.asked.filter(({ path }) => path.endsWith(torch.file)).map(({ range }) => range);
    expect(ranges).toEqual([undefined, "bytes=150-", "bytes=300-"]);
  });

  it("goes on in the next run, too", async () => {
    const { env, cache } = bare("next-run");
    {
      await using index = await FakeIndex.start(wheels, {
        fault: (response, wheel, range) =>
          range === undefined ? cutting(1, 200)(response, wheel, range) : !!response.writeHead(503).end(),
      });
      await expect(install({ env, mirror: index.address })).rejects.toMatchObject({
        code: "DOWNLOAD_FAILED",
        message: expect.stringContaining("HTTP 503"),
        hint: expect.stringContaining("npx peft-train setup"),
      });
      expect(readdirSync(cache)).toEqual(["downloads"]);
    }
    await using index = await FakeIndex.start(wheels);
    expect(tree(await install({ env, mirror: index.address }))).toEqual(KEPT);
    expect(index.asked.find(({ path }) => path.endsWith(torch.file))?.range).toBe("bytes=200-");
    expect(readdirSync(cache)).toEqual([NAME]);
  });

  it("uses nothing whose hash is wrong, and keeps nothing of it", async () => {
    const changed = { ...torch, content: Buffer.from(torch.content) };
    changed.content.writeUInt8(changed.content.readUInt8(100) ^ 1, 100);
    await using index = await FakeIndex.start([changed, ...wheels.slice(1)]);
    const { env, cache } = bare("wrong");
    await expect(install({ env, mirror: index.address })).rejects.toMatchObject({
      code: "DOWNLOAD_FAILED",
      message: expect.stringMatching(new RegExp(`has SHA-256 \\w{64}; ${torch.sha256} is expected`)),
      hint: expect.stringContaining("--mirror"),
    });
    expect(readdirSync(cache)).toEqual([]);
  });

  it("fetches nothing where the index tells of another hash", async () => {
    await using index = await FakeIndex.start([{ ...torch, sha256: "0".repeat(64) }]);
    const { env, cache } = bare("told");
    await expect(install({ env, mirror: index.address })).rejects.toMatchObject({ code: "DOWNLOAD_FAILED" });
    expect(index.asked.map(({ path }) => path)).toEqual(["/simple/torch/"]);
    expect(readdirSync(cache)).toEqual([]);
  });

  it("says what an index has not, and where none answers", async () => {
    await using index = await FakeIndex.start(wheels.slice(1));
    const { env, cache } = bare("absent");
    await expect(install({ env, mirror: index.address })).rejects.toMatchObject({
      code: "DOWNLOAD_FAILED",
      message: expect.stringContaining("answers HTTP 404"),
    });
    await expect(install({ env, mirror: "http://127.0.0.1:9/simple" })).rejects.toMatchObject({
      code: "DOWNLOAD_FAILED",
      message: expect.stringMatching(/127\.0\.0\.1:9 does not answer/),
      hint: expect.stringContaining("npx peft-train setup"),
    });
    expect(readdirSync(cache)).toEqual([]);
  });

  it("goes by the proxy of the environment, with a password for the index alone", async () => {
    await using index = await FakeIndex.start(wheels);
    await using proxy = await FakeProxy.start();
    const { env } = bare("proxy", { HTTP_PROXY: proxy.address });
    const mirror = index.address.replace("//", "//me:secret@");
    expect(tree(await install({ env, mirror }))).toEqual(KEPT);
    expect(proxy.requests).toBeGreaterThan(0);
    expect(index.asked[0]?.authorization).toBe(`Basic ${Buffer.from("me:secret").toString("base64")}`);

    const without = bare("no-proxy", { HTTP_PROXY: "http://127.0.0.1:9", NO_PROXY: "127.0.0.1" });
    expect(tree(await install({ env: without.env, mirror: index.address }))).toEqual(KEPT);
    const dead = bare("dead-proxy", { HTTP_PROXY: "http://127.0.0.1:9" });
    await expect(install({ env: dead.env, mirror: index.address })).rejects.toMatchObject({
      code: "DOWNLOAD_FAILED",
      hint: expect.stringContaining("proxy"),
    });
  });

  it("lets the second of two at once wait, and fetches once", async () => {
    await using index = await FakeIndex.start(wheels);
    const { env, cache } = bare("two");
    const both = await Promise.all([1, 2].map(() => install({ env, mirror: index.address })));
    expect(new Set(both).size).toBe(1);
    expect(index.asked.filter(({ path }) => path.endsWith(torch.file))).toHaveLength(1);
    expect(readdirSync(cache)).toEqual([NAME]);
  });

  it("takes the place of a pip that is missing or too old", async () => {
    await using index = await FakeIndex.start(wheels);
    const cases: [behaviour: "no-pip" | "full-wheel", python: string, reason: string][] = [
      ["no-pip", "3.11", "python3 has no pip"],
      ["full-wheel", "3.8", "python3 is Python 3.8, older than 3.10"],
    ];
    for (const [behaviour, FAKE_PYTHON, reason] of cases) {
      const python = makeFakePython(temporary.path(`pip-${behaviour}`));
      const PEFT_TRAIN_CACHE = temporary.path(`pip-${behaviour}`, "cache");
      const env = python.env(behaviour, { PEFT_TRAIN_CACHE, FAKE_PYTHON, PEFT_TRAIN_MIRROR: index.address });
      const notes: string[] = [];
      await install({ env, onNote: (note) => notes.push(note) });
      expect(notes).toEqual([`Without pip: ${reason}.`]);
      expect(python.calls()).toEqual([]);
    }
  });

  it("says what to install where the pinned hashes do not serve", async () => {
    const { env } = bare("other-version");
    await expect(installLibtorch({ env, mirror: "http://127.0.0.1:9", wheels: [] })).rejects.toMatchObject({
      code: "DOWNLOAD_FAILED",
      hint: expect.stringContaining("python3-pip"),
    });
  });
});

describe("from files", () => {
  it("in a folder, or torch's wheel with the others beside it", async () => {
    const folder = writeWheels(temporary.path("files", "wheels"), wheels);
    for (const [name, mirror] of [
      ["folder", folder],
      ["wheel", join(folder, torch.file)],
    ] as const) {
      const { env, cache } = bare(`files-${name}`);
      expect(tree(await install({ env, mirror }))).toEqual(KEPT);
      expect(readdirSync(cache)).toEqual([NAME]);
    }
  });

  it("a wheel for the CPU needs no other, and need not be a pinned one", async () => {
    const [plain] = makeTorchWheels(version, null);
    const wheel = plain as FakeWheel;
    const folder = writeWheels(temporary.path("plain"), [wheel]);
    const { env } = bare("files-plain");
    const installed = await install({ env, mirror: join(folder, wheel.file) });
    expect(existsSync(join(installed, "nvidia"))).toBe(false);
    expect(existsSync(join(installed, "torch", "lib", "libtorch_cpu.so"))).toBe(true);
  });

  const broken: [name: string, wheels: () => FakeWheel[], code: string, message: RegExp][] = [
    ["none", () => [], "DOWNLOAD_FAILED", /no wheel of torch/],
    ["without NVIDIA's", () => [torch], "DOWNLOAD_FAILED", /needs nvidia_cuda_runtime-\S+, which is not in/],
    [
      "changed",
      () => [{ ...torch, content: Buffer.concat([torch.content, Buffer.from("x")]) }],
      "DOWNLOAD_FAILED",
      /has SHA-256/,
    ],
    [
      "cut off",
      () => [
        {
          ...torch,
          file: torch.file.replace("cp312-cp312", "cp39-cp39"),
          content: torch.content.subarray(0, 900),
        },
      ],
      "DOWNLOAD_FAILED",
      /is no whole wheel/,
    ],
    [
      "without libtorch",
      () =>
        [
          makeWheel(
            "torch",
            version,
            { "torch/__init__.py": "" },
            torch.file.replace(/^.*?-.*?-/, "").replace(".whl", ""),
          ),
        ].map((wheel) => ({ ...wheel, file: wheel.file.replace("cp312-cp312", "cp39-cp39") })),
      "DOWNLOAD_FAILED",
      /has no libtorch for cpu/,
    ],
  ];
  it.each(broken)("%s: one clear error, and nothing is left", async (name, files, code, message) => {
    const folder = temporary.path(`broken-${name}`);
    mkdirSync(folder, { recursive: true });
    writeWheels(folder, files());
    const { env, cache } = bare(`broken-cache-${name}`);
    await expect(install({ env, mirror: folder })).rejects.toMatchObject({
      ...{ name: "PeftTrainError", code },
      message: expect.stringMatching(message),
      hint: expect.any(String),
    });
    expect(readdirSync(cache)).toEqual([]);
  });

  it("a wheel whose files are not what its own list says is not used", async () => {
    const [plain] = makeTorchWheels(version, null);
    const wheel = plain as FakeWheel;
    const at = wheel.content.indexOf("torch/lib/libc10.so") + "torch/lib/libc10.so".length;
    wheel.content.writeUInt8(wheel.content.readUInt8(at + 1) ^ 8, at + 1); // inside the packed "c10"
    const folder = writeWheels(temporary.path("record"), [wheel]);
    const { env, cache } = bare("record-cache");
    await expect(install({ env, mirror: folder })).rejects.toMatchObject({
      code: "DOWNLOAD_FAILED",
      message: expect.stringMatching(/is no whole wheel/),
    });
    expect(readdirSync(cache)).toEqual([]);
  });

  it("another version is refused by name", async () => {
    const folder = writeWheels(temporary.path("old"), makeTorchWheels("2.9.1"));
    const [old] = readdirSync(folder).filter((name) => name.startsWith("torch"));
    const { env } = bare("old-cache");
    await expect(install({ env, mirror: join(folder, old as string) })).rejects.toMatchObject({
      code: "LIBTORCH_INCOMPATIBLE",
      message: expect.stringContaining("torch-2.9.1"),
    });
  });
});

describe("a folder that takes nothing", () => {
  /** A small file system of its own; false where this user may not mount one. */
  function mounted(folder: string, options: string): boolean {
    mkdirSync(folder, { recursive: true });
    return spawnSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", folder]).status === 0;
  }
  const unmount = (folder: string) => spawnSync("umount", [folder]);

  it("full from the beginning, or in the middle: said, and nothing is left", async ({ skip }) => {
    const folder = writeWheels(temporary.path("full", "wheels"), wheels);
    // With so few files in all the disk is full when some are unpacked, though bytes are free.
    for (const [name, options, message] of [
      ["small", "size=10m", /takes \d.* are free/],
      ["few", "size=8g,nr_inodes=12", /ENOSPC/],
    ] as const) {
      const cache = temporary.path("full", name);
      if (!mounted(cache, options)) return skip();
      try {
        const { env } = bare(`full-${name}`, { PEFT_TRAIN_CACHE: cache });
        await expect(install({ env, mirror: folder })).rejects.toMatchObject({
          code: "OUTPUT_UNWRITABLE",
          message: expect.stringMatching(message),
          hint: expect.stringContaining("PEFT_TRAIN_CACHE"),
        });
        expect(readdirSync(cache)).toEqual([]);
      } finally {
        unmount(cache);
      }
    }
  });

  it("read-only, or below a file", async ({ skip }) => {
    const folder = writeWheels(temporary.path("closed", "wheels"), wheels);
    writeFileSync(temporary.path("closed", "file"), "");
    const readOnly = temporary.path("closed", "read-only");
    const isMounted = mounted(readOnly, "ro,size=10m");
    try {
      for (const cache of [
        temporary.path("closed", "file", "cache"),
        ...(isMounted ? [join(readOnly, "cache")] : []),
      ]) {
        const { env } = bare("closed-cache", { PEFT_TRAIN_CACHE: cache });
        await expect(install({ env, mirror: folder })).rejects.toMatchObject({
          code: "OUTPUT_UNWRITABLE",
          hint: expect.stringContaining("PEFT_TRAIN_CACHE"),
        });
      }
    } finally {
      if (isMounted) unmount(readOnly);
    }
    if (!isMounted) skip("this user may not mount a read-only folder");
  });
});
