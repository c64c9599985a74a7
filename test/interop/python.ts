import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** Runs a Python program and reads the JSON that it prints. */
export async function python(program: string, args: string[], env: NodeJS.ProcessEnv = {}): Promise<never> {
  const interpreter = process.env.PEFT_TRAIN_INTEROP_PYTHON;
  if (interpreter === undefined) throw new Error("PEFT_TRAIN_INTEROP_PYTHON names no Python");
  const { stdout } = await promisify(execFile)(interpreter, ["-c", program, ...args], {
    env: { ...process.env, ...env },
    maxBuffer: 2 ** 26,
  });
  return JSON.parse(stdout) as never;
}
