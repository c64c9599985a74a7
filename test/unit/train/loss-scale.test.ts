import { describe, expect, it } from "vitest";
import { LossScale } from "../../../lib/train/step/loss-scale.js";

describe("the loss scale", () => {
  it("is halved by an overflow and doubled after 2,000 steps without one", () => {
    const scale = new LossScale();
    expect(scale.scale).toBe(65_536);
    scale.update("a");
    expect(scale.state).toEqual({ scale: 32_768, finite: 0, skipped: 1 });
    for (let i = 0; i < 1999; i++) scale.update(undefined);
    expect(scale.scale).toBe(32_768);
    scale.update(undefined);
    expect(scale.state).toEqual({ scale: 65_536, finite: 0, skipped: 1 });
  });

  it("goes on from where it was kept", () => {
    const scale = new LossScale();
    scale.update("a");
    scale.update(undefined);
    const again = new LossScale();
    again.restore(scale.state);
    expect(again.state).toEqual(scale.state);
  });

  it("gives up where a scale of 1 overflows, naming the tensor", () => {
    const scale = new LossScale();
    for (let i = 0; i < 16; i++) scale.update("a");
    expect(scale.scale).toBe(1);
    expect(() => scale.update("encoder.layer.0.query.lora_A")).toThrow(
      expect.objectContaining({
        code: "NOT_FINITE",
        message: "the gradient of encoder.layer.0.query.lora_A overflows float16, down to a loss scale of 1",
      }),
    );
  });
});
