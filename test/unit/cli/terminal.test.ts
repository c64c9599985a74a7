import { afterEach, describe, expect, it, vi } from "vitest";
import { count, counted, duration, metric, rate, size } from "../../../lib/cli/display/terminal.js";
import { trainableParameters } from "../../../lib/cli/display/train-report.js";
import { exitCode } from "../../../lib/cli/print-error.js";
import { Interrupt } from "../../../lib/cli/run/interrupt.js";
import { PeftTrainError } from "../../../lib/errors.js";

describe("numbers", () => {
  it("are short and readable", () => {
    expect([count(73_011), metric(0.89034), metric(null)]).toEqual(["73,011", "0.8903", "undefined"]);
    expect([0, 1, 1141].map((value) => counted(value, "step"))).toEqual(["0 steps", "1 step", "1,141 steps"]);
    expect([0, 5e-4, 4.854e-4, 1e-10, 1].map(rate)).toEqual(["0", "5e-4", "4.85e-4", "1e-10", "1e+0"]);
    expect([0, 59.6, 83, 3599, 3683].map(duration)).toEqual(["0:00", "1:00", "1:23", "59:59", "1:01:23"]);
    expect([0, 1023, 447_152, 90_868_376].map(size)).toEqual(["0 B", "1023 B", "437 KB", "86.7 MB"]);
  });

  it("of parameters are as PEFT prints them", () => {
    // 221,184 of e5-small-v2 with r 8 on query, key and value.
    expect(trainableParameters(221_184, 33_581_184)).toBe(
      "trainable params: 221,184 || all params: 33,581,184 || trainable%: 0.6587",
    );
  });
});

describe("exit codes", () => {
  it("tell a bad command line from a failed run", () => {
    const codes = (["USAGE", "NOT_YET_AVAILABLE", "ABORTED", "DATA_LABEL"] as const).map((code) =>
      exitCode(new PeftTrainError(code, "")),
    );
    expect(codes).toEqual([2, 2, 130, 1]);
    expect(exitCode(new Error("a bug"))).toBe(1);
  });
});

describe("an interrupt", () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });

  it("asks for a tidy end first, and ends the process the second time", () => {
    const exit = vi.spyOn(process, "exit").mockImplementation(() => undefined as never);
    const stop = vi.fn();
    const before = process.listenerCount("SIGTERM");
    {
      using interrupt = new Interrupt(stop);
      expect(interrupt.exitCode).toBeUndefined();
      process.emit("SIGTERM");
      expect(stop).toHaveBeenCalledExactlyOnceWith("SIGTERM");
      expect(exit).not.toHaveBeenCalled();
      expect(interrupt.exitCode).toBe(143);
      process.emit("SIGINT");
      expect(exit).toHaveBeenCalledExactlyOnceWith(130);
    }
    expect(process.listenerCount("SIGTERM")).toBe(before);
  });
});
