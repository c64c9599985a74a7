import { describe, expect, it } from "vitest";
import { runScript } from "../support/script.js";

// What becomes of an Encoder when its owner closes it, forgets it or ends, idle and busy: each in a process of its own, of which
// exit code and signal count.

const url = (name: string) => JSON.stringify(new URL(`../../${name}`, import.meta.url).href);
const PRELUDE = `
import { Worker } from "node:worker_threads";
import { fileURLToPath } from "node:url";
const { Encoder } = await import(${url("dist/index.js")});
const load = () => Encoder.load(fileURLToPath(${url("data/encoder")}), { threads: 1 });
const texts = Array.from({ length: 4000 }, (_, i) => "how do I learn to swim in " + i + " days");
const code = (promise) => promise.then(() => "fulfilled", (error) => error.code);
const collect = async () => { for (let i = 0; i < 6; i++) { globalThis.gc(); await new Promise((r) => setTimeout(r, 30)); } };
`;
const run = (body: string, flags: string[] = []) => runScript(PRELUDE + body, flags);
const silent = (stdout: string) => ({ code: 0, signal: null, stdout, stderr: "" });

describe("an encoder", () => {
  it("that is open and idle does not keep the process", async () => {
    expect(await run(`const e = await load(); console.log((await e.encode(["a"])).length);`)).toEqual(
      silent("1\n"),
    );
  });

  it("closes twice, and refuses all use afterwards", async () => {
    const outcome = await run(`const e = await load();
      await Promise.all([e.close(), e.close()]); await e.close(); await e[Symbol.asyncDispose]();
      console.log(await code(e.encode(["a"])), await code(e.similarity(["a"], ["b"])), await code(e.info()), await code(e.memory()));`);
    expect(outcome).toEqual(silent(`${"ENCODER_CLOSED ".repeat(4).trim()}\n`));
  });

  it("that is closed while busy finishes what was asked for before, and nothing after", async () => {
    const outcome = await run(`const e = await load(); const order = [];
      const large = e.encode(texts).then((rows) => order.push("large " + rows.length));
      const small = e.encode(["a"]).then(() => order.push("small"));
      const closing = e.close().then(() => order.push("closed"));
      const late = code(e.encode(["a"]));
      await Promise.all([large, small, closing]); console.log(order.join(), await late, e.pending.calls);`);
    expect(outcome).toEqual(silent("small,large 4000,closed ENCODER_CLOSED 0\n"));
  });

  it("is closed where its block ends", async () => {
    const outcome = await run(`const e = await load(); const working = e.encode(texts);
      await e[Symbol.asyncDispose]();
      console.log((await working).length, await code(e.encode(["a"])));`);
    expect(outcome).toEqual(silent("4000 ENCODER_CLOSED\n"));
  });

  it("warns when it is collected while open, and not when it was closed", async () => {
    const open = await run(
      `await (async () => { const e = await load(); await e.encode(["a"]); })(); await collect(); console.log("end");`,
      ["--expose-gc"],
    );
    expect(open).toMatchObject({ code: 0, signal: null, stdout: "end\n" });
    expect(open.stderr).toMatch(
      /\[ENCODER_NOT_CLOSED\] PeftTrainWarning: an Encoder of .*encoder was garbage collected while it was open/,
    );
    const closed = `await (async () => { const e = await load(); await e.encode(["a"]); await e.close(); })(); await collect(); console.log("end");`;
    expect(await run(closed, ["--expose-gc"])).toEqual(silent("end\n"));
  });

  it("finishes a call whose encoder nobody holds any more", async () => {
    const outcome = await run(
      `const working = (async () => (await load()).encode(texts))(); await collect(); console.log((await working).length);`,
      ["--expose-gc"],
    );
    expect(outcome).toMatchObject({ code: 0, signal: null, stdout: "4000\n" });
  });

  it("tells V8 what it holds outside the heap, so that those nobody holds are collected without being asked for", async () => {
    // 60 models of 5.5 MB. Were V8 not told, it would see 60 small objects and collect none of them.
    const outcome =
      await run(`let collected = 0; const registry = new FinalizationRegistry(() => collected++);
      process.removeAllListeners("warning");
      for (let i = 0; i < 60; i++) { registry.register(await load()); await new Promise((r) => setTimeout(r, 1)); }
      console.log(collected > 20);`);
    expect(outcome).toEqual(silent("true\n"));
  }, 120_000);

  it("works beside others in one thread", async () => {
    const outcome = await run(`const all = await Promise.all([load(), load(), load()]);
      const rows = await Promise.all(all.map((e) => e.encode(texts.slice(0, 300))));
      const bits = (vector) => Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength);
      console.log(rows.every((some) => bits(some[299]).equals(bits(rows[0][299]))));
      await Promise.all(all.map((e) => e.close()));`);
    expect(outcome).toEqual(silent("true\n"));
  });
});

describe("the end of a process with calls running and waiting", () => {
  const BUSY = `const e = await load(); const calls = Array.from({ length: 20 }, () => e.encode(texts));
    await new Promise((r) => setTimeout(r, 30));`;

  it("by process.exit keeps its code", async () => {
    expect(await run(`${BUSY} process.exit(3);`)).toEqual({ code: 3, signal: null, stdout: "", stderr: "" });
  });

  it("by an uncaught exception is the exception's", async () => {
    const outcome = await run(`${BUSY} setTimeout(() => { throw new Error("mine"); });`);
    expect(outcome).toMatchObject({ code: 1, signal: null });
    expect(outcome.stderr).toContain("Error: mine");
  });

  it("by an uncaught rejection is the rejection's", async () => {
    const outcome = await run(`${BUSY} e.encode([1]);`);
    expect(outcome).toMatchObject({ code: 1, signal: null });
    expect(outcome.stderr).toContain("texts: expected an array of strings, found number at 0");
  });

  it("by a signal is the signal's", async () => {
    expect(
      await run(`${BUSY} process.kill(process.pid, "SIGTERM"); await new Promise(() => {});`),
    ).toMatchObject({
      code: null,
      signal: "SIGTERM",
      stderr: "",
    });
  });
});

describe("worker threads with an encoder", () => {
  const worker = (body: string): string =>
    `new Worker(${JSON.stringify(`${PRELUDE}const { parentPort } = await import("node:worker_threads");${body}`)}, { eval: true })`;
  const ended = `const ended = (w) => new Promise((resolve, reject) => { w.on("error", reject); w.on("exit", resolve); });`;

  it("work side by side and with the main thread's", async () => {
    const outcome = await run(`${ended}
      const start = () => ended(${worker(`const e = await load(); await e.encode(texts.slice(0, 200)); await e.close();`)});
      const e = await load();
      const [rows] = await Promise.all([e.encode(texts.slice(0, 200)), start(), start()]);
      await e.close(); console.log(rows.length);`);
    expect(outcome).toEqual(silent("200\n"));
  });

  it("may be ended in the middle of a call, and the process goes on", async () => {
    const outcome = await run(`${ended}
      const e = await load();
      for (let round = 0; round < 3; round++) {
        const w = ${worker(`const e = await load(); parentPort.postMessage("busy"); while (true) await Promise.all([e.encode(texts), e.encode(["a"])]);`)};
        const exit = ended(w);
        await new Promise((resolve) => w.once("message", resolve));
        await new Promise((r) => setTimeout(r, 20 * round));
        await w.terminate(); await exit;
      }
      console.log((await e.encode(["a"])).length); await e.close();`);
    expect(outcome).toEqual(silent("1\n"));
  });
});
