import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import type { Finding } from "../../lib/doctor/finding.js";
import { locateLibtorch } from "../../lib/native/locate.js";
import { compressedBytes, contentFaults, LARGEST_BYTES } from "../../scripts/check-package.mjs";
import { stage } from "../../scripts/stage.mjs";
import { aboveFloor, newest, symbolVersions } from "../../scripts/symbol-versions.mjs";
import { temporaryFolder } from "../support/temporary-folder.js";

const temporary = temporaryFolder();
const root = fileURLToPath(new URL("../..", import.meta.url));
const platform = `${process.platform}-${process.arch}`;
const installed = () => temporary.path("project", "node_modules", "peft-train");

/** A name for the npm that runs this. */
function npm(args: readonly string[], cwd: string): string {
  const env = { ...process.env, npm_config_update_notifier: "false" };
  return execFileSync("npm", args, { cwd, env, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
}

/** Runs the command of the installed package. */
function run(args: readonly string[], env: NodeJS.ProcessEnv = {}): { code: number; stdout: string } {
  const command = [join(installed(), "bin", "peft-train.js"), ...args];
  const options = {
    cwd: temporary.path("project"),
    env: { ...process.env, ...env },
    encoding: "utf8" as const,
  };
  try {
    const stdout = execFileSync(process.execPath, command, {
      ...options,
      stdio: ["ignore", "pipe", "ignore"],
    });
    return { code: 0, stdout };
  } catch (error) {
    const { status, stdout } = error as { status: number; stdout: string };
    return { code: status, stdout };
  }
}

// The tarball as a release packs it, with this checkout's build as the prebuild, in an empty folder. Dependencies come from the
// checkout: a test fetches nothing. `npm run release` installs them from the registry.
beforeAll(() => {
  const staged = temporary.path("package");
  stage(root, staged, undefined);
  const file = join(staged, "package.json");
  const manifest = JSON.parse(readFileSync(file, "utf8"));
  writeFileSync(file, JSON.stringify({ ...manifest, dependencies: {} }));
  npm(["pack", "--ignore-scripts", "--pack-destination", temporary.path()], staged);
  const project = temporary.path("project");
  mkdirSync(project);
  writeFileSync(join(project, "package.json"), '{ "private": true }');
  // Scripts are allowed: there must be none.
  npm(
    ["install", "--offline", "--no-audit", "--no-fund", temporary.path(`peft-train-${manifest.version}.tgz`)],
    project,
  );
  for (const name of readdirSync(join(root, "node_modules"))) {
    const place = join(project, "node_modules", name);
    if (!name.startsWith(".") && !existsSync(place)) symlinkSync(join(root, "node_modules", name), place);
  }
}, 300_000);

describe("the packed tarball", { timeout: 180_000 }, () => {
  it("holds what it must and nothing else, below 5 MB without data", () => {
    const files = readdirSync(installed(), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(installed().length + 1));
    const manifest = JSON.parse(readFileSync(join(installed(), "package.json"), "utf8"));
    expect(contentFaults(files, manifest, [platform])).toEqual([]);
    expect(compressedBytes(installed())).toBeLessThan(LARGEST_BYTES);
    // The check itself can fail.
    expect(contentFaults([...files, "test/a.test.ts", "dist/a.js.map"], manifest, [platform])).toHaveLength(
      2,
    );
    expect(
      contentFaults(files.slice(1), { scripts: { install: "x" } }, ["win32-x64"]).length,
    ).toBeGreaterThan(4);
  });

  it("compiles nothing and builds nothing where it is installed", () => {
    expect(existsSync(join(installed(), "build"))).toBe(false);
    expect(existsSync(join(installed(), "lib"))).toBe(false);
  });

  it("trains with its prebuild, as doctor says", () => {
    const { folder } = locateLibtorch();
    const { code, stdout } = run(["doctor", "--json"], { PEFT_TRAIN_LIBTORCH: join(folder, "torch") });
    const { checks } = JSON.parse(stdout) as { checks: Finding[] };
    const found = Object.fromEntries(checks.map((each) => [each.check, each]));
    expect(found.addon?.found).toBe(join(installed(), "prebuilds", platform, "peft_train.node"));
    expect(found["train.cpu"]?.status).toBe("ok");
    expect(code).toBe(0);
  });

  it("without libtorch says what to run, and what to run without an addon", () => {
    const bare = {
      PEFT_TRAIN_CACHE: temporary.path("none"),
      PATH: "",
      VIRTUAL_ENV: "",
      PEFT_TRAIN_LIBTORCH: "",
    };
    expect(run(["doctor"], bare)).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/To mend libtorch:\n {4}npx peft-train setup$/m),
    });
    const prebuild = join(installed(), "prebuilds", platform, "peft_train.node");
    const content = readFileSync(prebuild);
    writeFileSync(prebuild, "no library");
    try {
      const { code, stdout } = run(["doctor"], bare);
      expect(code).toBe(1);
      expect(stdout).toMatch(
        /To mend Compiled addon:\n.*npm install --no-save cmake-js@8 && npm run build --prefix \S+peft-train/,
      );
    } finally {
      writeFileSync(prebuild, content);
    }
  });

  it("from source tells what is missing to compile it", () => {
    const script = join(installed(), "scripts", "build-ts.mjs");
    expect(execFileSync(process.execPath, [script], { encoding: "utf8" })).toBe(
      "dist/ came with the package.\n",
    );
  });
});

describe("symbol versions", () => {
  it("are read from compiled files, and held against glibc 2.28", () => {
    const versions = symbolVersions(join(root, "build", "Release", "libpeft_train.so"));
    expect(Object.keys(versions)).toEqual(expect.arrayContaining(["GLIBC", "GLIBCXX"]));
    const old = newest("x GLIBC_2.17 a\nx (GLIBC_2.28) b\nx GLIBC_2.4 c\nx GLIBCXX_3.4.25 d");
    expect(old).toEqual({ GLIBC: "2.28", GLIBCXX: "3.4.25" });
    expect(aboveFloor(old)).toEqual([]);
    expect(aboveFloor(newest("GLIBC_2.34\nGLIBCXX_3.4.30"))).toEqual([
      "GLIBC_2.34 (2.28 is the floor)",
      "GLIBCXX_3.4.30 (3.4.25 is the floor)",
    ]);
  });
});
