import { expect, it } from "vitest";
import { checkInterface, loadEngine } from "../../../lib/native/load.js";

it("an addon of other sources is refused when it is loaded, not in the middle of work", () => {
  for (const [version, told] of [
    [undefined, "unnumbered"],
    [1, "is 1,"],
  ] as const) {
    const found = () => checkInterface(version, "/somewhere/libpeft_train.so");
    expect(found).toThrow(
      expect.objectContaining({ code: "ADDON_MISSING", hint: expect.stringContaining("npm run build") }),
    );
    expect(found).toThrow(told);
  }
});

it("the addon that is built here is not", () => {
  expect(loadEngine().info().torchVersion).toMatch(/^\d+\.\d+/);
});
