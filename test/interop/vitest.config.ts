import { defineConfig } from "vitest/config";

// npm run test:interop:files; needs PEFT_TRAIN_INTEROP_PYTHON: a Python with huggingface_hub, tensorboard and wandb.
export default defineConfig({ test: { include: ["test/interop/*.test.ts"], testTimeout: 120_000 } });
