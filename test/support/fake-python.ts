import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** How the fake pip ends; "full-wheel" is what the index serves, "cpu-wheel" what some mirrors do. */
export type PipBehaviour =
  | "full-wheel"
  | "cpu-wheel"
  | "no-match"
  | "network"
  | "unreachable"
  | "disk-full"
  | "no-pip"
  | "nothing"
  | "hang";

// Runs as a program of its own, so it stands as text. Between the download and the installing it waits for `delay`.
const PROGRAM = `
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
const args = process.argv.slice(2);
if (args.includes("--version") && process.env.FAKE_PIP !== "no-pip") {
  console.log("pip 23.2.1 from /usr/lib/python3/dist-packages/pip (python " + (process.env.FAKE_PYTHON ?? "3.11") + ")");
  process.exit(0);
}
if (args.includes("--version")) { console.error("/usr/bin/python3: No module named pip"); process.exit(1); }
appendFileSync(process.env.FAKE_PIP_LOG, JSON.stringify({ args, TMPDIR: process.env.TMPDIR }) + "\\n");
const behaviour = process.env.FAKE_PIP;
const end = (text) => { console.error(text); process.exit(1); };
const target = args[args.indexOf("--target") + 1];
const put = (file, text = file) => {
  const path = join(target, file);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, text);
};
writeFileSync(join(process.env.TMPDIR, "torch.whl"), "a wheel");
await new Promise((resolve) => setTimeout(resolve, Number(process.env.FAKE_PIP_DELAY ?? 0)));
if (behaviour === "hang") await new Promise((resolve) => setTimeout(resolve, 600_000));
if (behaviour === "no-match") end("ERROR: Could not find a version that satisfies the requirement\\nERROR: No matching distribution found for torch==2.13.0\\n");
if (behaviour === "unreachable") end("WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError': /simple/torch/\\nERROR: No matching distribution found for torch==2.13.0\\n");
if (behaviour === "network") { put("torch/half"); end("WARNING: Retrying\\nERROR: Connection broken: timed out\\n\\n[notice] more"); }
if (behaviour === "disk-full") end("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device");
if (behaviour === "nothing") process.exit(0);
for (const requirement of args.slice(args.indexOf("--disable-pip-version-check") + 1)) {
  const [name, version] = requirement.split("==");
  if (name === "torch") {
    const cuda = behaviour === "cpu-wheel" ? "None" : "'13.0'";
    put("torch/version.py", "__version__ = '" + version + "+local'\\ncuda: Optional[str] = " + cuda + "\\n");
    for (const file of ["include/a.h", "nn/a.py", "__init__.py", "bin/protoc", "lib/libc10.so", "lib/libgomp.so.1",
      "lib/libtorch_cpu.so", "lib/libtorch.so", "lib/libtorch_cuda.so", "lib/libtorch_cuda_linalg.so",
      "lib/libtorch_python.so", "lib/libc10_cuda.so", "lib/libshm/a"]) put("torch/" + file);
    put("torchgen/a.py"); put("bin/torchrun"); put("torch-" + version + ".dist-info/METADATA");
  }
  if (name === "nvidia-cuda-runtime") { put("nvidia/cu13/lib/libcudart.so.13"); put("nvidia/cu13/include/a.h"); }
  if (name === "nvidia-cuda-cupti") { put("nvidia/cu13/lib/libcupti.so.13"); put("nvidia/cu13/lib/libnvperf_host.so"); }
}
`;

export interface FakePython {
  /** A PATH with nothing but the fake, and what steers it. */
  env: (behaviour: PipBehaviour, more?: NodeJS.ProcessEnv) => NodeJS.ProcessEnv;
  /** The command lines it was run with so far, without `-m pip install`. */
  calls: () => { args: string[]; TMPDIR: string }[];
}

/** Puts a python3 into `folder` that plays pip. */
export function makeFakePython(folder: string): FakePython {
  mkdirSync(join(folder, "bin"), { recursive: true });
  const program = join(folder, "pip.mjs");
  const python = join(folder, "bin", "python3");
  const log = join(folder, "calls.jsonl");
  writeFileSync(program, PROGRAM);
  writeFileSync(python, `#!/bin/sh\nexec "${process.execPath}" "${program}" "$@"\n`);
  chmodSync(python, 0o755);
  return {
    env: (behaviour, more = {}) => ({
      HOME: folder,
      PATH: join(folder, "bin"),
      FAKE_PIP: behaviour,
      FAKE_PIP_LOG: log,
      ...more,
    }),
    calls: () =>
      existsSync(log)
        ? readFileSync(log, "utf8")
            .trim()
            .split("\n")
            .map((line) => JSON.parse(line))
        : [],
  };
}
