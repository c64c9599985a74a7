import { execFile } from "node:child_process";
import { promisify } from "node:util";

export interface ScriptEnd {
  code: number | null;
  /** That ended the process, where one did. */
  signal: string | null;
  stdout: string;
  stderr: string;
}

/** Runs the text of a module in a process of its own. */
export async function runScript(
  text: string,
  flags: readonly string[] = [],
  cwd = process.cwd(),
): Promise<ScriptEnd> {
  const args = [...flags, "--input-type=module", "--eval", text];
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { cwd, timeout: 170_000 });
    return { code: 0, signal: null, stdout, stderr };
  } catch (error) {
    const { code, signal, stdout, stderr } = error as ScriptEnd;
    return { code, signal, stdout, stderr };
  }
}
