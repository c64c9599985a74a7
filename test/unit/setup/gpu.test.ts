import { mkdirSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { gpuFinding } from "../../../lib/doctor/cuda.js";
import { cudaVersion, examineGpu, type Gpu } from "../../../lib/setup/gpu.js";
import { cudaWheelFor } from "../../../lib/setup/pin.js";
import { type FakeDriver, makeFakeDriver } from "../../support/shared-library.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();
const MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:12:55 UTC 2025\n";
const OPEN_MODULE =
  "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.161.07  Release Build  (dvs-builder@U22)\n";

/** A machine with this in /proc and on the bus, and a driver library. */
function machine(
  name: string,
  { module, bus = false }: { module?: string; bus?: boolean },
  driver?: FakeDriver,
) {
  const put = (file: string, text: string): void => {
    mkdirSync(temporary.path(name, file, ".."), { recursive: true });
    writeFileSync(temporary.path(name, file), text);
  };
  mkdirSync(temporary.path(name, "lib"), { recursive: true });
  if (module !== undefined) put("proc/driver/nvidia/version", module);
  if (bus) {
    put("sys/bus/pci/devices/0000:00:04.0/vendor", "0x10de\n");
    put("sys/bus/pci/devices/0000:00:04.0/class", "0x030200\n");
  }
  put("sys/bus/pci/devices/0000:00:01.0/vendor", "0x8086\n");
  put("sys/bus/pci/devices/0000:00:01.0/class", "0x030000\n");
  if (driver !== undefined) makeFakeDriver(temporary.path(name, "lib"), driver);
  const env = { ...process.env, LD_LIBRARY_PATH: temporary.path(name, "lib") };
  return (timeoutMs?: number) => examineGpu(env, temporary.path(name), timeoutMs);
}

const location = { folder: "/cache", version: "2.13.0", source: "the cache" };

describe("examineGpu", () => {
  it("finds none where there is none", async () => {
    const gpu = await machine("none", {})();
    expect(gpu).toMatchObject({ present: false, devices: [] });
    expect(gpuFinding(gpu, undefined)).toMatchObject({
      status: "ok",
      found: expect.stringContaining("none"),
    });
  });

  it("reads the driver, its CUDA and the devices", async () => {
    const gpu = await machine("works", { module: MODULE }, { version: 13000, devices: ["8.9", "9.0"] })();
    expect(gpu).toEqual({
      present: true,
      driver: "580.65.06",
      cuda: 13000,
      devices: [
        { name: "NVIDIA Fake", memory: 24 * 2 ** 30, capability: "8.9" },
        { name: "NVIDIA Fake", memory: 24 * 2 ** 30, capability: "9.0" },
      ],
    });
    expect(gpuFinding(gpu, { ...location, cuda: "13.0" })).toMatchObject({
      status: "ok",
      found: expect.stringMatching(/NVIDIA Fake \(24 GiB, sm_89\).*driver 580\.65\.06 with CUDA 13\.0$/),
    });
    expect(gpuFinding(gpu, location)).toMatchObject({
      status: "note",
      next: "npx peft-train setup --device cuda",
    });
  });

  it("tells a card without a driver from no card", async () => {
    const gpu = await machine("bare", { bus: true })();
    expect(gpu).toMatchObject({ present: true, failure: expect.stringContaining("libcuda.so.1") });
    expect(gpuFinding(gpu, undefined)).toMatchObject({
      status: "problem",
      next: expect.stringMatching(/Install NVIDIA's driver/),
    });
  });

  it("makes a line of a driver that fails, crashes or hangs", async () => {
    const failing = machine("fails", { module: OPEN_MODULE }, { version: 12020, init: "return 999;" });
    expect(await failing()).toMatchObject({
      driver: "535.161.07",
      cuda: 12020,
      failure: "cuInit gives error 999",
    });
    const crashing = machine("crashes", { module: MODULE }, { version: 13000, init: "abort();" });
    const gpu = await crashing();
    expect(gpu.failure).toMatch(/crashed with SIGABRT/);
    expect(gpuFinding(gpu, undefined)).toMatchObject({
      status: "problem",
      next: expect.stringMatching(/^nvidia-smi/),
    });
    const hanging = machine("hangs", { module: MODULE }, { version: 13000, init: "sleep(600); return 0;" });
    expect((await hanging(2000)).failure).toMatch(/gave no answer within 2 s/);
  });
});

describe("the wheel for a driver", () => {
  it.each([
    [13000, 8.9, "13.0"],
    [13020, 12.0, "13.0"],
    [12040, 8.9, "12.6"],
    [12000, 7.5, "12.6"],
    [13000, 7.0, "12.6"], // CUDA 13 has no code for Volta
    [11080, 8.0, undefined],
    [12080, 12.0, undefined], // CUDA 12.6 has none for Blackwell
    [13000, 3.5, undefined],
  ])("CUDA %i on compute capability %d takes %s", (driver, capability, cuda) => {
    expect(cudaWheelFor(driver, capability)?.cuda).toBe(cuda);
  });

  it("says what it takes where the driver is too old", () => {
    const gpu = (cuda: number): Gpu => ({
      ...{ present: true, driver: "470.1", cuda },
      devices: [{ name: "A", memory: 2 ** 34, capability: "8.0" }],
    });
    expect(gpuFinding(gpu(11040), undefined)).toMatchObject({
      status: "problem",
      found: expect.stringContaining("with CUDA 11.4: too old"),
      next: "Update the driver to 525 or newer, then: npx peft-train setup --device cuda",
    });
    expect(gpuFinding(gpu(12040), { ...location, cuda: "13.0" })).toMatchObject({
      status: "problem",
      next: "Update the driver to 580, or: npx peft-train setup --device cuda --force",
    });
    expect(cudaVersion(12040)).toBe("12.4");
  });
});
