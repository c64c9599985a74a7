import { mkdirSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { hubFetch } from "../../../lib/hub/fetch.js";
import { parseRepository } from "../../../lib/hub/repository.js";
import { hubSettings } from "../../../lib/hub/settings.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();
afterEach(() => vi.unstubAllGlobals());

describe("the environment", () => {
  it("says where the cache is, in the order of Python's huggingface_hub", () => {
    const cache = (env: NodeJS.ProcessEnv): string => hubSettings(undefined, env).cache;
    expect(cache({})).toBe(join(homedir(), ".cache/huggingface/hub"));
    expect(cache({ XDG_CACHE_HOME: "/x" })).toBe("/x/huggingface/hub");
    expect(cache({ XDG_CACHE_HOME: "/x", HF_HOME: "~/hf" })).toBe(join(homedir(), "hf/hub"));
    expect(cache({ HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old" })).toBe("/old");
    expect(cache({ HUGGINGFACE_HUB_CACHE: "/old", HF_HUB_CACHE: "$DISK/new", DISK: "/d" })).toBe("/d/new");
  });

  it("says the token: one that was given, HF_TOKEN, or the file that hf auth login leaves", () => {
    const home = temporary.path("home");
    mkdirSync(home);
    writeFileSync(join(home, "token"), "hf_file\n");
    writeFileSync(temporary.path("other"), "hf_other");
    const token = (env: NodeJS.ProcessEnv, given?: string) =>
      hubSettings(given, { HF_HOME: home, ...env }).token;
    expect(token({ HF_TOKEN: "hf_env" }, "hf_given")).toBe("hf_given");
    expect(token({ HF_TOKEN: " hf_env\n" })).toBe("hf_env");
    expect(token({})).toBe("hf_file");
    expect(token({ HF_TOKEN_PATH: temporary.path("other") })).toBe("hf_other");
    expect(token({ HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" })).toBeUndefined();
    expect(token({ HF_HOME: temporary.path("none") })).toBeUndefined();
  });

  it("says the endpoint, time-out and whether there is a network", () => {
    expect(hubSettings(undefined, {})).toMatchObject({
      endpoint: "https://huggingface.co",
      offline: false,
      timeoutMs: 10_000,
    });
    const env = { HF_ENDPOINT: "http://mirror/", HF_HUB_OFFLINE: "ON", HF_HUB_DOWNLOAD_TIMEOUT: "3" };
    expect(hubSettings(undefined, env)).toMatchObject({
      endpoint: "http://mirror",
      offline: true,
      timeoutMs: 3000,
    });
    expect(() => hubSettings(undefined, { HF_ENDPOINT: "mirror" })).toThrow(
      expect.objectContaining({ code: "USAGE" }),
    );
  });
});

it("names of the Hub are told from paths", () => {
  const main = { revision: "main" };
  expect(parseRepository("intfloat/e5-small-v2")).toEqual({ id: "intfloat/e5-small-v2", ...main });
  expect(parseRepository("bert-base-uncased")).toEqual({ id: "bert-base-uncased", ...main });
  expect(parseRepository("me/model@refs/pr/1")).toEqual({ id: "me/model", revision: "refs/pr/1" });
  for (const path of [
    "./a/b",
    "/a/b",
    "../a",
    "a/b/c",
    "a/../b",
    "a/b@../../x",
    "a/b@/x",
    "a--b/c",
    "",
    "a/",
    "a b/c",
    "a/b@x.lock",
  ]) {
    expect(parseRepository(path), path).toBeUndefined();
  }
});

it("a redirect from https to http is not followed, and no token goes along with one to another host", async () => {
  const asked: [string, string | null][] = [];
  const answer = (location: string) => async (url: string, init: RequestInit) => {
    asked.push([url, new Headers(init.headers).get("authorization")]);
    return asked.length > 1
      ? new Response("done")
      : new Response(null, { status: 302, headers: { location } });
  };
  const settings = hubSettings("hf_secret", { HF_ENDPOINT: "https://hub.example" });
  vi.stubGlobal("fetch", answer("http://hub.example/x"));
  await expect(hubFetch({ settings })("https://hub.example/a")).rejects.toMatchObject({
    code: "DOWNLOAD_FAILED",
    message: expect.stringMatching(/leads from https to http/),
  });
  asked.length = 0;
  vi.stubGlobal("fetch", answer("https://hub.example.evil/x"));
  await hubFetch({ settings })("https://hub.example/a", {
    headers: { authorization: "Bearer hf_of_a_library" },
  });
  expect(asked).toEqual([
    ["https://hub.example/a", "Bearer hf_secret"],
    ["https://hub.example.evil/x", null],
  ]);
});
