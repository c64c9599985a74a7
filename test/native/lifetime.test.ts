import { describe, expect, it } from "vitest";
import { caseTexts, goldenPath, goldenShape } from "../parity/golden.js";
import { runScript } from "../support/script.js";

// What happens to open and busy handles when their owner goes away: in a process of its own, which must end with the
// right code and in silence.

const PRELUDE = `
import { Worker } from "node:worker_threads";
const { loadEngine } = await import(${JSON.stringify(new URL("../../dist/native/load.js", import.meta.url).href)});
const open = () => loadEngine().open({
  weightsPath: ${JSON.stringify(goldenPath("models/plain/model.safetensors"))},
  shape: ${JSON.stringify(goldenShape("plain"))}, pooling: "mean", device: "cpu", threads: 1,
});
const batch = { ids: Int32Array.from(${JSON.stringify([...caseTexts.ids])}), cuSeqlens: Int32Array.from(${JSON.stringify([...caseTexts.cuSeqlens])}) };
const options = { adapter: false, normalize: true, microBatchTokens: 1024 };
`;

const run = (body: string, flags: string[] = []) => runScript(PRELUDE + body, flags);

describe("the end of a process", () => {
  it("comes by itself while an encoder is open and idle", async () => {
    const outcome = await run(
      `const e = await open(); console.log((await e.encode(batch, options)).length);`,
    );
    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    expect(Number(outcome.stdout)).toBeGreaterThan(0);
  });

  it("waits for a running call, since its promise may be wanted", async () => {
    const outcome = await run(
      `const e = await open(); e.encode(batch, options).then(() => console.log("done"));`,
    );
    expect(outcome).toEqual({ code: 0, signal: null, stdout: "done\n", stderr: "" });
  });

  it("by process.exit with a call running keeps its code", async () => {
    expect(await run(`const e = await open(); e.encode(batch, options); process.exit(3);`)).toEqual({
      code: 3,
      signal: null,
      stdout: "",
      stderr: "",
    });
  });

  it("by an uncaught exception with a call running is the exception's", async () => {
    const outcome = await run(`const e = await open(); e.encode(batch, options); throw new Error("mine");`);
    expect(outcome.code).toBe(1);
    expect(outcome.stderr).toContain("Error: mine");
  });

  it("is clean after handles were collected while open", async () => {
    const outcome = await run(
      `for (let i = 0; i < 5; i++) { const e = await open(); await e.encode(batch, options); }
       for (let i = 0; i < 5; i++) { globalThis.gc(); await new Promise((r) => setTimeout(r, 20)); }
       console.log("collected");`,
      ["--expose-gc"],
    );
    expect(outcome).toEqual({ code: 0, signal: null, stdout: "collected\n", stderr: "" });
  });
});

describe("worker threads", () => {
  const worker = (body: string): string => `new Worker(${JSON.stringify(PRELUDE + body)}, { eval: true })`;
  const ended = `const ended = (w) => new Promise((resolve, reject) => { w.on("error", reject); w.on("exit", resolve); });`;

  it("each have an engine of their own, one after another and side by side", async () => {
    const outcome = await run(`${ended}
      const start = () => ended(${worker(`const e = await open(); await e.encode(batch, options); await e.close();`)});
      await start();
      await Promise.all([start(), start(), start()]);
      const e = await open(); console.log((await e.encode(batch, options)).length > 0);`);
    expect(outcome).toEqual({ code: 0, signal: null, stdout: "true\n", stderr: "" });
  });

  it("may be terminated with a call running", async () => {
    const outcome = await run(`${ended}
      const w = ${worker(`const e = await open(); const { parentPort } = await import("node:worker_threads");
        parentPort.postMessage("busy"); while (true) await e.encode(batch, options);`)};
      const exit = ended(w);
      await new Promise((resolve) => w.once("message", resolve));
      await w.terminate(); await exit;
      console.log("terminated");`);
    expect(outcome).toEqual({ code: 0, signal: null, stdout: "terminated\n", stderr: "" });
  });
});
