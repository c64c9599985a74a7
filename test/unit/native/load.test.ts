import { expect, it } from "vitest";
import { PeftTrainError } from "../../../lib/errors.js";
import { checkInterface, loadEngine, withReason } from "../../../lib/native/load.js";
import { buildCommand } from "../../../lib/native/package-root.js";

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

it("says how to compile the addon, in a checkout and in a project that has the package", () => {
  expect(buildCommand("/home/me/peft-train")).toBe("npm run build");
  expect(buildCommand("/home/me/project/node_modules/peft-train")).toMatch(
    /^npm install --no-save cmake-js@8 && npm run build --prefix \/home\/me\/project\/node_modules\/peft-train$/,
  );
});

it("a GPU that is not seen because CUDA's libraries are missing is told with the reason", () => {
  const error = new PeftTrainError("DEVICE_UNAVAILABLE", "libtorch sees 0 CUDA devices");
  expect(withReason(error, undefined)).toBe(error);
  expect(withReason(error, "libcudart.so.13: not found")).toMatchObject({
    code: "DEVICE_UNAVAILABLE",
    message: expect.stringMatching(/0 CUDA devices: CUDA's libraries do not load \(libcudart\.so\.13/),
    hint: expect.stringContaining("npx peft-train setup --force --device cuda"),
  });
});
