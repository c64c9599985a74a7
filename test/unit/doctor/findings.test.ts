import { mkdirSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { folderFinding } from "../../../lib/doctor/folders.js";
import { cpuFinding, memoryFinding, packageFinding, threadsFinding } from "../../../lib/doctor/machine.js";
import { hubFinding, proxyFinding } from "../../../lib/doctor/network.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();

describe("folders", () => {
  const base = { check: "cache", needed: 0, reason: "", variable: "PEFT_TRAIN_CACHE" };

  it("one that is not there yet counts as writable when it can be made", async () => {
    const folder = temporary.path("a", "b");
    expect(await folderFinding({ ...base, folder })).toMatchObject({
      status: "ok",
      details: { writable: true },
    });
  });

  it("one that cannot be made is a problem with the variable to set", async () => {
    mkdirSync(temporary.path("x"), { recursive: true });
    writeFileSync(temporary.path("x", "file"), "");
    for (const folder of [temporary.path("x", "file", "below"), "/proc/peft-train"]) {
      expect(await folderFinding({ ...base, folder })).toMatchObject({
        status: "problem",
        found: expect.stringContaining(folder),
        next: expect.stringContaining("PEFT_TRAIN_CACHE"),
      });
    }
  });

  it("too little space is a problem, with what it is needed for", async () => {
    const found = await folderFinding({
      ...base,
      folder: temporary.path(),
      needed: 1e18,
      reason: "it is big",
    });
    expect(found).toMatchObject({ status: "problem", found: expect.stringMatching(/GB free; it is big$/) });
  });
});

describe("settings", () => {
  it("passwords of proxies and tokens are never shown", () => {
    const env = { https_proxy: "http://me:secret@proxy:8080", NO_PROXY: "localhost", HF_TOKEN: "hf_secret" };
    const findings = [proxyFinding(env), hubFinding(env)];
    expect(findings[0]?.found).toBe("https_proxy=http://***@proxy:8080, NO_PROXY=localhost");
    expect(findings[1]).toMatchObject({ status: "ok", details: { token: true } });
    expect(JSON.stringify(findings)).not.toContain("secret");
  });

  it("the Hub offline is a note, an address that is none a problem", () => {
    expect(hubFinding({ HF_HUB_OFFLINE: "1" }).status).toBe("note");
    expect(hubFinding({ HF_ENDPOINT: "nowhere" })).toMatchObject({
      status: "problem",
      next: "unset HF_ENDPOINT",
    });
  });
});

it("the machine is described in words and for programs", () => {
  expect(packageFinding()).toMatchObject({ status: "ok", details: { node: process.versions.node } });
  expect(cpuFinding().details).toHaveProperty("AVX-512");
  expect(memoryFinding().details?.totalBytes).toBeGreaterThan(1e8);
  expect(threadsFinding({}).status).toBe("ok");
  expect(threadsFinding({ OMP_NUM_THREADS: "1" })).toMatchObject({
    status: "note",
    next: "unset OMP_NUM_THREADS",
  });
});
