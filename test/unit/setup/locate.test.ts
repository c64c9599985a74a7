import { mkdirSync, readdirSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { engineTorchVersion, locateLibtorch } from "../../../lib/native/locate.js";
import { PINNED_TORCH } from "../../../lib/setup/pin.js";
import { makeFakeTorch } from "../../support/fake-torch.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();
const builtFor = "2.13.0";
const site = join("lib", "python3.11", "site-packages", "torch");

/** An environment where nothing is to be found but what a test puts there. */
function empty(name: string, more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  return { PATH: temporary.path(name, "bin"), PEFT_TRAIN_CACHE: temporary.path(name, "cache"), ...more };
}

describe("locateLibtorch", () => {
  it("finds PEFT_TRAIN_LIBTORCH as torch/ and as the folder that holds it", () => {
    const torch = makeFakeTorch(temporary.path("given", "torch"), { version: "2.13.1" });
    for (const value of [torch, dirname(torch)]) {
      const env = empty("given", { PEFT_TRAIN_LIBTORCH: value });
      expect(locateLibtorch({ env, builtFor })).toEqual({
        folder: dirname(torch),
        version: "2.13.1",
        source: "PEFT_TRAIN_LIBTORCH",
      });
    }
  });

  it("gives an unpacked libtorch/ the name torch/ by a link in the cache, once", () => {
    const libtorch = makeFakeTorch(temporary.path("zip", "libtorch"), {
      version: "2.13.0",
      versionFile: "archive",
    });
    const env = empty("zip", { PEFT_TRAIN_LIBTORCH: libtorch });
    const first = locateLibtorch({ env, builtFor });
    expect(first.version).toBe("2.13.0");
    expect(realpathSync(join(first.folder, "torch"))).toBe(realpathSync(libtorch));
    expect(locateLibtorch({ env, builtFor })).toEqual(first);
    expect(readdirSync(temporary.path("zip", "cache", "links"))).toHaveLength(1);
  });

  it("says so when PEFT_TRAIN_LIBTORCH holds nothing of the kind, and looks nowhere else", () => {
    makeFakeTorch(temporary.path("wrong", "cache", "libtorch-2.13.0-cpu", "torch"), { version: "2.13.0" });
    const env = empty("wrong", { PEFT_TRAIN_LIBTORCH: temporary.path("wrong") });
    expect(() => locateLibtorch({ env, builtFor })).toThrow(
      expect.objectContaining({
        code: "LIBTORCH_MISSING",
        message: expect.stringContaining(`PEFT_TRAIN_LIBTORCH=${temporary.path("wrong")}`),
        hint: expect.stringContaining("npx peft-train setup"),
      }),
    );
  });

  it("names both versions when PEFT_TRAIN_LIBTORCH has another minor version", () => {
    const torch = makeFakeTorch(temporary.path("minor", "torch"), { version: "2.12.0" });
    const env = empty("minor", { PEFT_TRAIN_LIBTORCH: torch });
    expect(() => locateLibtorch({ env, builtFor })).toThrow(
      expect.objectContaining({
        code: "LIBTORCH_INCOMPATIBLE",
        message: expect.stringMatching(/libtorch 2\.12\.0; the engine was built for 2\.13/),
        hint: expect.stringContaining("npm run build"),
      }),
    );
  });

  it("builds against any supported version that PEFT_TRAIN_LIBTORCH names, and no other", () => {
    const torch = (version: string) => makeFakeTorch(temporary.path(version, "torch"), { version });
    const build = (version: string) =>
      locateLibtorch({ env: empty("b", { PEFT_TRAIN_LIBTORCH: torch(version) }), forBuild: true });
    expect(build("2.12.1").version).toBe("2.12.1");
    expect(() => build("2.9.1")).toThrow(
      expect.objectContaining({
        code: "LIBTORCH_INCOMPATIBLE",
        message: expect.stringMatching(/2\.11 to 2\.15/),
      }),
    );
  });

  it("does not trust a torch that does not say its version", () => {
    const torch = makeFakeTorch(temporary.path("mute", "torch"), { version: "2.13.0", versionFile: "none" });
    const env = empty("mute", { PEFT_TRAIN_LIBTORCH: torch });
    expect(() => locateLibtorch({ env, builtFor })).toThrow(
      expect.objectContaining({ code: "LIBTORCH_INCOMPATIBLE" }),
    );
  });

  it("takes the cache before the virtual environment, and that before python3", () => {
    const name = "order";
    makeFakeTorch(temporary.path(name, "cache", "libtorch-2.13.0-cpu", "torch"), { version: "2.13.0" });
    makeFakeTorch(temporary.path(name, "venv", site), { version: "2.13.2" });
    makeFakeTorch(temporary.path(name, site), { version: "2.13.3" });
    mkdirSync(temporary.path(name, "bin"));
    writeFileSync(temporary.path(name, "bin", "python3"), "");
    const env = empty(name, { VIRTUAL_ENV: temporary.path(name, "venv") });
    const { PEFT_TRAIN_CACHE: _, ...uncached } = env;
    const elsewhere = { PEFT_TRAIN_CACHE: temporary.path(name, "nowhere") };

    expect(locateLibtorch({ env, builtFor })).toMatchObject({ version: "2.13.0", source: "the cache" });
    expect(locateLibtorch({ env: { ...uncached, ...elsewhere }, builtFor })).toMatchObject({
      version: "2.13.2",
      source: "the virtual environment",
    });
    const { VIRTUAL_ENV: __, ...bare } = uncached;
    expect(locateLibtorch({ env: { ...bare, ...elsewhere }, builtFor })).toMatchObject({
      version: "2.13.3",
      source: temporary.path(name, "bin", "python3"),
    });
  });

  it("follows python3 to where it is installed", () => {
    const torch = makeFakeTorch(temporary.path("linked", "python", site), { version: "2.13.0" });
    for (const folder of [["bin"], ["python", "bin"]]) mkdirSync(temporary.path("linked", ...folder));
    writeFileSync(temporary.path("linked", "python", "bin", "python3.11"), "");
    symlinkSync(
      temporary.path("linked", "python", "bin", "python3.11"),
      temporary.path("linked", "bin", "python3"),
    );
    expect(locateLibtorch({ env: empty("linked"), builtFor }).folder).toBe(dirname(realpathSync(torch)));
  });

  it("passes over what does not fit: another minor version, a torch without its library", () => {
    makeFakeTorch(temporary.path("mixed", "cache", "libtorch-2.12.0-cpu", "torch"), { version: "2.12.0" });
    mkdirSync(temporary.path("mixed", "cache", "libtorch-2.13.9-cpu", "torch"), { recursive: true });
    makeFakeTorch(temporary.path("mixed", "venv", site), { version: "2.13.0" });
    const env = empty("mixed", { VIRTUAL_ENV: temporary.path("mixed", "venv") });
    expect(locateLibtorch({ env, builtFor }).source).toBe("the virtual environment");
  });

  it("wants CUDA's library where the device is cuda", () => {
    const folder = (device: string) => temporary.path("gpu", "cache", `libtorch-2.13.0-${device}`, "torch");
    makeFakeTorch(folder("cpu"), { version: "2.13.0" });
    const options = { env: empty("gpu"), builtFor, device: "cuda" } as const;
    expect(() => locateLibtorch(options)).toThrow(expect.objectContaining({ code: "LIBTORCH_MISSING" }));
    makeFakeTorch(folder("cuda"), { version: "2.13.0", cuda: "13.0" });
    expect(locateLibtorch(options).folder).toBe(dirname(folder("cuda")));
  });

  it("says what was found when only other versions are there", () => {
    const torch = makeFakeTorch(temporary.path("old", "venv", site), { version: "2.9.1" });
    const env = empty("old", { VIRTUAL_ENV: temporary.path("old", "venv") });
    expect(() => locateLibtorch({ env, builtFor })).toThrow(
      expect.objectContaining({
        code: "LIBTORCH_INCOMPATIBLE",
        message: expect.stringContaining(
          `built for libtorch 2.13; found only 2.9.1 in ${realpathSync(torch)}`,
        ),
      }),
    );
  });

  it("says what to run when there is none, also where the cache is a file", () => {
    mkdirSync(temporary.path("none"));
    writeFileSync(temporary.path("none", "cache"), "");
    expect(() => locateLibtorch({ env: empty("none"), builtFor })).toThrow(
      expect.objectContaining({
        code: "LIBTORCH_MISSING",
        hint: "Run: npx peft-train setup; or, in a program, first: await ensureLibtorch()",
      }),
    );
  });
});

describe("engineTorchVersion", () => {
  it("is what the build wrote beside the addon, and the pin before there is one", () => {
    mkdirSync(temporary.path("package", "build", "Release"), { recursive: true });
    expect(engineTorchVersion(temporary.path("package"))).toBe(PINNED_TORCH);
    writeFileSync(temporary.path("package", "build", "Release", "libtorch-version"), "2.14.1\n");
    expect(engineTorchVersion(temporary.path("package"))).toBe("2.14.1");
  });
});
