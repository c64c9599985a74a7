import { execFile, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { PeftTrainError } from "../errors.js";
import { aborted, diskFull, OWN_TORCH } from "./errors.js";

export interface PipInstall {
  /** As "torch==2.13.0". */
  requirements: readonly string[];
  /** `pip install --target`. */
  target: string;
  /** pip's TMPDIR: it downloads and unpacks there. */
  scratch: string;
  dependencies: boolean;
  /** In place of the user's own index. */
  index?: string | undefined;
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
}

/** SIGKILL follows SIGTERM after this long. */
const KILL_MS = 5_000;
/** pip's last words; what comes before is never shown. */
const KEPT_LINES = 60;
/** torch has wheels for no older one. */
const OLDEST_PYTHON = 10;
const PROBE_MS = 30_000;

/** The interpreter whose pip is run. */
export function pythonCommand(env: NodeJS.ProcessEnv): string {
  return env.PEFT_TRAIN_PYTHON || "python3";
}

export function pipArguments(
  install: Pick<PipInstall, "requirements" | "target" | "dependencies" | "index">,
): string[] {
  return [
    ...["-m", "pip", "install", "--target", install.target, "--only-binary=:all:", "--no-compile"],
    ...["--progress-bar", "off", "--no-input", "--disable-pip-version-check"],
    ...(install.dependencies ? [] : ["--no-deps"]),
    ...(install.index === undefined ? [] : ["--index-url", install.index]),
    ...install.requirements,
  ];
}

/** Whether there is a pip whose Python torch has wheels for: the version, else why not. */
export async function findPip(env: NodeJS.ProcessEnv): Promise<{ version: string } | { reason: string }> {
  const python = pythonCommand(env);
  const { error, stdout } = await new Promise<{ error: Error | null; stdout: string }>((resolve) => {
    execFile(python, ["-m", "pip", "--version"], { env, timeout: PROBE_MS }, (error, stdout) =>
      resolve({ error, stdout }),
    );
  });
  const [, version, major, minor] = /^pip (\S+) .*\(python (\d+)\.(\d+)\)/m.exec(stdout) ?? [];
  if (version === undefined) {
    const absent = (error as NodeJS.ErrnoException | null)?.code === "ENOENT";
    return { reason: absent ? `there is no ${python}` : `${python} has no pip` };
  }
  if (Number(major) === 3 && Number(minor) >= OLDEST_PYTHON) return { version };
  return { reason: `${python} is Python ${major}.${minor}, older than 3.${OLDEST_PYTHON}` };
}

/**
 * Runs pip with the user's own index, proxy and cache settings. Settles after pip has ended, an abort included.
 *
 * @throws PeftTrainError DOWNLOAD_FAILED with pip's last error line; ABORTED
 */
export async function pipInstall(install: PipInstall): Promise<void> {
  const python = pythonCommand(install.env);
  // --target and these two settings of a user exclude each other.
  const env = { ...install.env, TMPDIR: install.scratch, PIP_USER: "0", PIP_REQUIRE_VIRTUALENV: "0" };
  const child = spawn(python, pipArguments(install), { env, stdio: ["ignore", "pipe", "pipe"] });
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => {
      lines.push(line);
      if (lines.length > KEPT_LINES) lines.shift();
    });
  }
  let timer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    child.kill("SIGTERM");
    timer = setTimeout(() => child.kill("SIGKILL"), KILL_MS);
  };
  install.signal.addEventListener("abort", stop, { once: true });
  try {
    const status = await new Promise<number | NodeJS.Signals>((resolve, reject) => {
      child.once("error", reject).once("close", (code, signal) => resolve(code ?? signal ?? 1));
    });
    if (install.signal.aborted) throw aborted();
    if (status !== 0) throw pipError(python, status, lines);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw cause;
    throw new PeftTrainError(
      "DOWNLOAD_FAILED",
      `Fetching libtorch needs Python with pip; there is no ${python}`,
      {
        cause,
        hint: `Install python3 and python3-pip, or ${OWN_TORCH}.`,
      },
    );
  } finally {
    clearTimeout(timer);
    install.signal.removeEventListener("abort", stop);
  }
}

function pipError(python: string, status: number | NodeJS.Signals, lines: readonly string[]): PeftTrainError {
  const told = lines.map((line) => line.trim()).filter((line) => line !== "");
  const last = told.findLast((line) => /^ERROR:/.test(line)) ?? told.at(-1) ?? "it said nothing";
  const cause = new Error(`pip, exit status ${status}:\n${lines.join("\n")}`);
  if (told.some((line) => line.includes("No module named pip"))) {
    return new PeftTrainError("DOWNLOAD_FAILED", `Fetching libtorch needs pip; ${python} has none`, {
      cause,
      hint: `Run: ${python} -m ensurepip --upgrade (or install python3-pip), or ${OWN_TORCH}.`,
    });
  }
  if (told.some((line) => /No space left on device|Disk quota exceeded/.test(line))) {
    return diskFull("the cache", last, cause);
  }
  const settings = `${python} -m pip config list`;
  const noWheel = /No matching distribution|Could not find a version/.test(last);
  // An index that does not answer ends with the very same line; what broke is told before it.
  const unreachable = told.some((line) => /Retrying \(|Could not fetch URL/.test(line));
  if (noWheel && !unreachable) {
    return new PeftTrainError("DOWNLOAD_FAILED", `pip could not fetch libtorch: ${last}`, {
      cause,
      hint: `torch has wheels for Linux and Python 3.10 or newer: see ${python} --version; PEFT_TRAIN_PYTHON names another. For one that is new enough, see which index is asked: ${settings}`,
    });
  }
  return new PeftTrainError(
    "DOWNLOAD_FAILED",
    `pip could not fetch libtorch: ${noWheel ? "the package index does not answer" : last}`,
    {
      cause,
      hint: `Check the network and pip's settings with: ${settings}. Then run: npx peft-train setup`,
    },
  );
}
