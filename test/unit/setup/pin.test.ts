import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { cacheFolder, libtorchFolder, parseLibtorchFolder } from "../../../lib/setup/cache.js";
import { cudaRuntimeRequirements, isSupported, minorVersion, PINNED_TORCH } from "../../../lib/setup/pin.js";

describe("versions", () => {
  it("pins a version that is supported", () => {
    expect(isSupported(PINNED_TORCH)).toBe(true);
  });

  it.each([
    ["2.10.1", false],
    ["2.11.0", true],
    ["2.15.9", true],
    ["2.16.0", false],
    ["1.13.0", false],
    ["3.13.0", false],
    ["", false],
  ])("takes %s: %s", (version, supported) => {
    expect(isSupported(version)).toBe(supported);
  });

  it("compares minor versions, whatever the local part", () => {
    expect(minorVersion("2.13.0+cu130")).toBe("2.13");
  });

  it("names CUDA's packages as each major version does", () => {
    expect(cudaRuntimeRequirements("13.0")).toEqual([
      "nvidia-cuda-runtime==13.0.*",
      "nvidia-cuda-cupti==13.0.*",
    ]);
    expect(cudaRuntimeRequirements("12.8")).toEqual([
      "nvidia-cuda-runtime-cu12==12.8.*",
      "nvidia-cuda-cupti-cu12==12.8.*",
    ]);
  });
});

describe("the cache folder", () => {
  it.each([
    [{ PEFT_TRAIN_CACHE: "/a/b", XDG_CACHE_HOME: "/x" }, "/a/b"],
    [{ PEFT_TRAIN_CACHE: "rel" }, resolve("rel")],
    [{ XDG_CACHE_HOME: "/x" }, "/x/peft-train"],
    [{ XDG_CACHE_HOME: "relative" }, join(homedir(), ".cache", "peft-train")],
    [{ PEFT_TRAIN_CACHE: "" }, join(homedir(), ".cache", "peft-train")],
  ])("of %j is %s", (env, folder) => {
    expect(cacheFolder(env)).toBe(folder);
  });

  it("reads back the names it gives, and no others", () => {
    const name = libtorchFolder("", "2.13.0", "cuda");
    expect(parseLibtorchFolder(name)).toEqual({ version: "2.13.0", device: "cuda" });
    expect(parseLibtorchFolder(`.${name}.17.tmp`)).toBeUndefined();
    expect(parseLibtorchFolder(`${name}.lock`)).toBeUndefined();
  });
});
