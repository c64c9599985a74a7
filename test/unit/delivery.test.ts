import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { PINNED_TORCH } from "../../lib/setup/pin.js";
import { PINNED_WHEELS } from "../../lib/setup/wheels.js";
import { copyParts, dockerfileFaults, instructions } from "../../scripts/dockerfile.mjs";
import { temporaryFolder } from "../support/temporary-folder.js";

const temporary = temporaryFolder();
const root = fileURLToPath(new URL("../..", import.meta.url));
const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  scripts: Record<string, string>;
};

it("npm ci runs no script of onnxruntime-node, which would fetch CUDA libraries of 300 MB", () => {
  const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { hasInstallScript?: true }>;
  };
  const found = Object.entries(packages).filter(([path]) => path.endsWith("node_modules/onnxruntime-node"));
  expect(found.length).toBeGreaterThan(0);
  // npm before version 11 knows nothing of allowScripts and goes by the lock file. Should npm have put it back: take it out by hand.
  for (const [path, entry] of found) expect(entry, path).not.toHaveProperty("hasInstallScript");
});

describe("Dockerfiles", () => {
  it.each(["Dockerfile", "Dockerfile.cuda"])("%s is in order", (name) => {
    expect(dockerfileFaults(join(root, name), root)).toEqual([]);
  });

  it("what is wrong in one is told", () => {
    const context = temporary.path("context");
    mkdirSync(context, { recursive: true });
    for (const name of ["kept", "left-out"]) writeFileSync(join(context, name), "");
    writeFileSync(join(context, "package.json"), '{"scripts":{"build":"x"}}');
    writeFileSync(join(context, ".dockerignore"), "**\n!kept\n");
    const file = join(context, "Dockerfile");
    writeFileSync(
      file,
      [
        "FROM ubuntu:latest AS build",
        "COPY kept left-out nowhere ./",
        "RUN npm run build && \\",
        "    npm run nothing",
        "RUN if true; do",
        "COPY --from=other /a /b",
        "COPI a b",
      ].join("\n"),
    );
    const faults = dockerfileFaults(file, context).join("\n");
    for (const told of [
      "line 1: ubuntu:latest is not the official image",
      "line 2: .dockerignore leaves left-out out",
      "line 2: nowhere is not in the build's context",
      "line 3: package.json has no script nothing",
      "line 5: ",
      "line 6: there is no stage other",
      "line 7: ",
    ])
      expect(faults).toContain(told);
  });

  it("instructions are read with their flags, and lines that go on joined", () => {
    expect(instructions("FROM node:22-slim\n# a word\nCOPY --from=build /a \\\n  /b\n")).toEqual([
      { keyword: "FROM", text: "node:22-slim", line: 1 },
      { keyword: "COPY", text: "--from=build /a /b", line: 3 },
    ]);
    expect(copyParts("--from=build /a /c /b")).toEqual({
      from: "build",
      sources: ["/a", "/c"],
      target: "/b",
    });
  });
});

describe("workflows", () => {
  const folder = join(root, ".github", "workflows");
  const files = readdirSync(folder);
  interface Step {
    run?: string;
    uses?: string;
  }
  interface Workflow {
    jobs: Record<string, { steps?: Step[]; uses?: string; needs?: string; permissions?: object }>;
  }
  const read = (name: string) => parse(readFileSync(join(folder, name), "utf8")) as Workflow;

  it.each(files)("%s runs shell that parses, and scripts and files that are there", (name) => {
    for (const { steps = [], uses, needs } of Object.values(read(name).jobs)) {
      if (uses?.startsWith("./")) expect(existsSync(join(root, uses))).toBe(true);
      if (needs !== undefined) expect(Object.keys(read(name).jobs)).toContain(needs);
      for (const step of steps) {
        if (step.uses !== undefined) expect(step.uses).toMatch(/^actions\/[\w-]+@v\d+$/);
        const text = (step.run ?? "").replaceAll(/\$\{\{.*?\}\}/g, "x");
        expect(spawnSync("bash", ["-n", "-c", text], { encoding: "utf8" }).stderr).toBe("");
        for (const [, script = ""] of text.matchAll(/\bnpm run ([\w:-]+)/g))
          expect(scripts).toHaveProperty([script]);
        for (const [, file = ""] of text.matchAll(/\b((?:scripts|\.ci)\/[\w./-]+)/g)) {
          expect(existsSync(join(root, file))).toBe(true);
        }
      }
    }
  });

  it("publish with provenance, and test on every Node and kind of libtorch", () => {
    const release = readFileSync(join(folder, "release.yml"), "utf8");
    expect(release).toMatch(/npm publish .*--provenance/);
    expect(release).toMatch(/id-token: write/);
    const test = readFileSync(join(folder, "test.yml"), "utf8");
    expect(test.match(/node: \[20, 22, 24\]/g)).toHaveLength(2);
    expect(test).toContain("libtorch: [none, cpu, cuda]");
    expect(test).toContain(`torch==${PINNED_TORCH}`);
    expect(readFileSync(join(folder, "build.yml"), "utf8")).toMatch(
      /manylinux_2_28_x86_64[\s\S]*manylinux_2_28_aarch64/,
    );
  });
});

it("every pinned wheel is of the pinned torch, or of NVIDIA", () => {
  for (const wheels of Object.values(PINNED_WHEELS)) {
    expect(wheels[0]?.file.startsWith(`torch-${PINNED_TORCH}-`)).toBe(true);
    for (const { project, file, sha256 } of wheels) {
      expect(file.startsWith(`${project.replaceAll("-", "_")}-`)).toBe(true);
      expect(sha256).toMatch(/^[0-9a-f]{64}$/);
    }
    expect(new Set(wheels.map(({ sha256 }) => sha256)).size).toBe(wheels.length);
  }
});
