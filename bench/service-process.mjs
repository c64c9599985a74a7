import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { endWithUs } from "./process.mjs";

const MAIN = fileURLToPath(new URL("../examples/service/main.mjs", import.meta.url));

/** Starts examples/service on a free port and waits until it is ready: its address, its process, and a way to end it. */
export async function startService(args, { adapters = new Map() } = {}) {
  const named = [...adapters].flatMap(([name, folder]) => ["--adapter", `${name}=${folder}`]);
  const child = endWithUs(
    spawn(process.execPath, [MAIN, "--port=0", ...named, ...args], { stdio: ["ignore", "pipe", "pipe"] }),
  );
  const ended = once(child, "exit").then(([code, signal]) => ({ code, signal, stderr }));
  let stderr = "";
  child.stderr.on("data", (text) => {
    stderr += text;
  });
  const stop = () => {
    child.kill("SIGTERM");
    return ended;
  };
  let url;
  for await (const line of createInterface({ input: child.stdout })) {
    url ??= /^listening on (.*)/.exec(line)?.[1];
    if (line.startsWith("ready")) return { url, child, ended, stop };
  }
  throw new Error(`the service did not start: ${stderr}`);
}
