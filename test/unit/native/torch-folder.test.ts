import { expect, it } from "vitest";
import { libraryFile } from "../../../lib/native/torch-folder.js";

it("a shared library is called as the platform calls it", () => {
  expect(libraryFile("torch_cpu", "linux")).toBe("libtorch_cpu.so");
  expect(libraryFile("torch_cpu", "darwin")).toBe("libtorch_cpu.dylib");
  expect(libraryFile("torch_cpu", "win32")).toBe("torch_cpu.dll");
});
