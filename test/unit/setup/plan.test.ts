import { mkdirSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { engineTorchVersion } from "../../../lib/native/locate.js";
import type { Gpu } from "../../../lib/setup/gpu.js";
import { DEFAULT_INDEX } from "../../../lib/setup/mirror.js";
import { CUDA_WHEELS, minorVersion } from "../../../lib/setup/pin.js";
import { type PlanOptions, planInstall } from "../../../lib/setup/plan.js";
import { makeFakePython } from "../../support/fake-python.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();
const version = engineTorchVersion();

const gpu = (cuda: number, capability = "8.9"): Gpu => ({
  present: true,
  driver: "5xx.01",
  cuda,
  devices: [{ name: "NVIDIA L4", memory: 24 * 2 ** 30, capability }],
});
const none: Gpu = { present: false, devices: [] };

function plan(options: PlanOptions, name = "pip") {
  const env = name === "pip" ? makeFakePython(temporary.path("pip")).env("full-wheel") : { PATH: "" };
  return planInstall({ gpu: none, env: { ...env, PEFT_TRAIN_CACHE: "/cache" }, ...options });
}

describe("the device", () => {
  it.each<
    [wanted: "auto" | "cuda", found: Gpu, device: string, index: string | undefined, note: RegExp | undefined]
  >([
    ["auto", none, "cpu", undefined, undefined],
    ["auto", gpu(13000), "cuda", undefined, undefined],
    ["auto", gpu(12040), "cuda", CUDA_WHEELS[1]?.index, /runs CUDA 12\.4: taking/],
    ["auto", gpu(13000, "7.0"), "cuda", CUDA_WHEELS[1]?.index, /for CUDA 12\.6/],
    ["auto", gpu(11040), "cpu", undefined, /needs a driver from 525 on\. Fetching for the CPU/],
    ["auto", gpu(12080, "12.0"), "cpu", undefined, /needs a driver from 580 on/],
    ["auto", gpu(13000, "3.5"), "cpu", undefined, /NVIDIA L4 of compute capability 3\.5, is too old/],
    ["auto", { ...none, present: true, failure: "no libcuda" }, "cpu", undefined, /no libcuda.*doctor/],
    ["cuda", none, "cuda", undefined, /no NVIDIA GPU here/],
    ["cuda", gpu(13000), "cuda", undefined, undefined],
  ])("%s on %o: %s", async (device, found, chosen, index, note) => {
    const planned = await plan({ device, gpu: found });
    expect(planned).toMatchObject({
      device: chosen,
      folder: `/cache/libtorch-${version}-${chosen}`,
      way: { kind: "pip", index },
    });
    if (note === undefined) expect(planned.notes).toEqual([]);
    else expect(planned.notes.join(" ")).toMatch(note);
  });

  it("cuda on a driver that is too old says what it would take", async () => {
    await expect(plan({ device: "cuda", gpu: gpu(11040) })).rejects.toMatchObject({
      code: "DEVICE_UNAVAILABLE",
      message: expect.stringContaining("driver from 525 on"),
      hint: expect.stringContaining("--device cpu"),
    });
  });

  it("what only pip can fetch needs pip", async () => {
    await expect(plan({ device: "cuda", gpu: gpu(12040) }, "bare")).rejects.toMatchObject({
      code: "DOWNLOAD_FAILED",
      hint: expect.stringContaining("update the driver to 580"),
    });
  });
});

describe("the version", () => {
  it("may be that of the engine, whole or in part", async () => {
    expect((await plan({ torch: minorVersion(version) })).version).toBe(version);
    expect((await plan({ torch: `${minorVersion(version)}.9` })).version).toBe(`${minorVersion(version)}.9`);
  });

  it.each(["2.10", "2.16.0", "3.0", "2", "latest", "2.13.0+cpu"])("%s is out of range", async (torch) => {
    await expect(plan({ torch })).rejects.toMatchObject({
      code: "USAGE",
      message: expect.stringContaining("2.11 to 2.15"),
      hint: expect.stringContaining("npx peft-train setup"),
    });
  });

  it("of another minor version says how to compile for it", async () => {
    const torch = minorVersion(version) === "2.12" ? "2.14" : "2.12";
    await expect(plan({ torch })).rejects.toMatchObject({
      code: "LIBTORCH_INCOMPATIBLE",
      hint: expect.stringMatching(/pip install .*"torch==2\.1[24]\.\*".*npm run build$/),
    });
  });
});

describe("the mirror", () => {
  it("is an index for pip, or for HTTPS where there is none", async () => {
    const mirror = "https://pypi.example/simple/";
    expect((await plan({ mirror })).way).toEqual({ kind: "pip", index: "https://pypi.example/simple" });
    expect((await plan({ mirror }, "bare")).way).toEqual({
      kind: "https",
      index: "https://pypi.example/simple",
    });
    expect((await plan({}, "bare")).way).toEqual({ kind: "https", index: DEFAULT_INDEX });
    const env = { PATH: "", PIP_INDEX_URL: "https://pip.example/simple" };
    expect((await plan({ env })).way).toEqual({ kind: "https", index: env.PIP_INDEX_URL });
    const named = { PATH: "", PEFT_TRAIN_MIRROR: "https://mirror.example/simple" };
    expect((await plan({ env: named })).way).toEqual({ kind: "https", index: named.PEFT_TRAIN_MIRROR });
  });

  it("may be a folder, or a wheel", async () => {
    mkdirSync(temporary.path("wheels"), { recursive: true });
    const wheel = temporary.path("wheels", "torch.whl");
    writeFileSync(wheel, "");
    const folder = temporary.path("wheels");
    expect((await plan({ mirror: folder })).way).toEqual({
      kind: "files",
      mirror: { folder, wheel: undefined },
    });
    expect((await plan({ mirror: wheel })).way).toEqual({ kind: "files", mirror: { folder, wheel } });
  });

  it.each([
    ["/nowhere", "FILE_NOT_FOUND"],
    ["ftp://host/simple", "USAGE"],
    ["https://", "USAGE"],
    [import.meta.filename, "USAGE"],
  ])("%s is none", async (mirror, code) => {
    await expect(plan({ mirror })).rejects.toMatchObject({
      code,
      message: expect.stringContaining("--mirror="),
    });
  });
});
