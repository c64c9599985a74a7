import { configDefaults, defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: [...configDefaults.exclude, "test/interop/**"],
    // One file at a time, in a process of its own: the engine takes every core, and stays mapped until the process ends.
    fileParallelism: false,
    pool: "forks",
    // What is no folder would be looked for on the Hub.
    env: { HF_HUB_OFFLINE: "1" },
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
