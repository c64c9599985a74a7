import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const SAMPLE_MS = 50;
const SHOWN = 2000;
const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** A benchmark that ends, however it does, takes what it started with it. @returns the same child */
export function endWithUs(child) {
  running.add(child);
  child.once("exit", () => running.delete(child));
  return child;
}

/**
 * Runs a program that prints one JSON object a line.
 * @param {string[]} args
 * @param {{ env?: Record<string, string>, timeoutSeconds?: number }} [options]
 * @returns {Promise<{ events: object[], seconds: number, peakBytes?: number }>} Every event has `at`, the seconds from the
 * start of the program until its line was here; `peakBytes` is the greatest resident size (undefined without /proc).
 */
export async function runProgram(program, args, { env = {}, timeoutSeconds } = {}) {
  const startedAt = performance.now();
  const elapsed = () => (performance.now() - startedAt) / 1000;
  const child = endWithUs(
    spawn(program, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] }),
  );
  let peakBytes;
  const sample = () => {
    peakBytes = peakMemory(child.pid) ?? peakBytes;
  };
  const timer = setInterval(sample, SAMPLE_MS);
  const deadline = timeoutSeconds && setTimeout(() => child.kill("SIGKILL"), timeoutSeconds * 1000);
  const events = [];
  let output = "";
  child.stderr.on("data", (chunk) => {
    output = (output + chunk).slice(-SHOWN);
  });
  createInterface({ input: child.stdout }).on("line", (line) => {
    const at = elapsed();
    sample();
    const event = parsed(line);
    if (event === undefined) output = `${output}${line}\n`.slice(-SHOWN);
    else events.push({ ...event, at });
  });
  try {
    await new Promise((resolve, reject) => {
      child.on("error", ({ message }) => reject(new Error(`${program} does not run: ${message}`)));
      child.on("close", (code, signal) => {
        if (code === 0) return resolve();
        const error = events.findLast(({ event }) => event === "error");
        const why =
          signal === null ? `ended with ${code}` : `was ended by ${signal} after ${elapsed().toFixed(0)} s`;
        reject(new Error(`${program} ${args.join(" ")} ${why}\n${error?.message ?? output.trim()}`));
      });
    });
  } finally {
    clearInterval(timer);
    clearTimeout(deadline);
  }
  return { events, seconds: elapsed(), peakBytes };
}

/** The event of that name; a program that ended well without it is a mistake of ours. */
export function eventNamed({ events }, name) {
  const found = events.find(({ event }) => event === name);
  if (found === undefined) throw new Error(`no "${name}" among ${events.length} events`);
  return found;
}

function parsed(line) {
  try {
    const value = JSON.parse(line);
    return typeof value?.event === "string" ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Of the program itself; what it starts does not count. */
function peakMemory(pid) {
  try {
    const match = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    return match === null ? undefined : Number(match[1]) * 1024;
  } catch {
    return undefined; // it has just ended, or there is no /proc here
  }
}
