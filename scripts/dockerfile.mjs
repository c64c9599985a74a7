// What a Dockerfile says, and what is wrong with it, without a daemon.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { DockerfileParser } from "dockerfile-ast";
import { validate } from "dockerfile-utils";

/** @returns {{ keyword: string, text: string, line: number }[]} with lines that go on joined, and comments left out */
export function instructions(content) {
  return DockerfileParser.parse(content)
    .getInstructions()
    .map((instruction) => {
      const flags = (instruction.getFlags?.() ?? []).map((flag) => `--${flag.getName()}=${flag.getValue()}`);
      const content =
        instruction
          .getArgumentsContent()
          ?.replaceAll(/\s*\\\r?\n\s*/g, " ")
          .trim() ?? "";
      const text = [...flags, content.replaceAll(/ {2,}/g, " ")].join(" ");
      return { keyword: instruction.getKeyword(), text, line: instruction.getRange().start.line + 1 };
    });
}

/** @returns {string[]} what is wrong: syntax, shell, sources that are not there, npm scripts that are not there */
export function dockerfileFaults(file, context) {
  const content = readFileSync(file, "utf8");
  const faults = validate(content).map(({ message, range }) => `line ${range.start.line + 1}: ${message}`);
  const { scripts } = JSON.parse(readFileSync(join(context, "package.json"), "utf8"));
  const stages = new Set();
  for (const { keyword, text, line } of instructions(content)) {
    const fault = (message) => faults.push(`line ${line}: ${message}`);
    if (keyword === "FROM") {
      const [image, , name] = text.split(/\s+/);
      if (!/^node:\d+(-[\w.]+)+$/.test(image))
        fault(`${image} is not the official image of Node with a version`);
      if (name !== undefined) stages.add(name);
    }
    if (keyword === "COPY") {
      const { from, sources } = copyParts(text);
      if (from !== undefined && !stages.has(from)) fault(`there is no stage ${from}`);
      for (const source of from === undefined ? sources : []) {
        if (!existsSync(join(context, source))) fault(`${source} is not in the build's context`);
        else if (source !== "." && !isInContext(context, source)) fault(`.dockerignore leaves ${source} out`);
      }
    }
    if (keyword === "RUN") {
      const { status, stderr } = spawnSync("bash", ["-n", "-c", text], { encoding: "utf8" });
      if (status !== 0) fault(stderr.trim());
      for (const [, script] of text.matchAll(/\bnpm run ([\w:-]+)/g)) {
        if (scripts[script] === undefined) fault(`package.json has no script ${script}`);
      }
      for (const [, script] of text.matchAll(/\bnode (\S+\.mjs)/g)) {
        if (!existsSync(join(context, script))) fault(`there is no ${script}`);
      }
    }
  }
  return faults;
}

/** "--from=build a b c/" in parts. */
export function copyParts(text) {
  const words = text.split(/\s+/);
  const from = words.find((word) => word.startsWith("--from="))?.slice("--from=".length);
  const paths = words.filter((word) => !word.startsWith("--"));
  return { from, sources: paths.slice(0, -1), target: paths.at(-1) };
}

/** What a list of "everything but" keeps: the first pattern of .dockerignore is two stars. */
export function contextNames(context) {
  return readFileSync(join(context, ".dockerignore"), "utf8")
    .split("\n")
    .filter((line) => line.startsWith("!"))
    .map((line) => line.slice(1));
}

function isInContext(context, source) {
  const path = source.replace(/\/$/, "");
  return contextNames(context).some((name) => path === name || path.startsWith(`${name}/`));
}
