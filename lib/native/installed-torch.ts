import { existsSync, readdirSync, realpathSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";

export interface TorchCandidate {
  /** A torch/ folder. */
  torch: string;
  /** What led there, for messages. */
  source: string;
}

/** The torch/ folders of the active virtual environment and of the python3 on PATH, by looking, not by running Python. */
export function* installedTorch(env: NodeJS.ProcessEnv): Generator<TorchCandidate> {
  const seen = new Set<string>();
  for (const { prefix, source } of pythonPrefixes(env)) {
    for (const torch of torchFolders(prefix)) {
      if (seen.has(torch)) continue;
      seen.add(torch);
      yield { torch, source };
    }
  }
}

function* pythonPrefixes(env: NodeJS.ProcessEnv): Generator<{ prefix: string; source: string }> {
  if (env.VIRTUAL_ENV) yield { prefix: env.VIRTUAL_ENV, source: "the virtual environment" };
  for (const folder of (env.PATH ?? "").split(delimiter)) {
    const python = join(folder, "python3");
    if (folder === "" || !existsSync(python)) continue;
    // A virtual environment's python3 is a link to the system's, and its packages lie beside the link.
    yield { prefix: dirname(folder), source: python };
    yield { prefix: dirname(dirname(realpathSync(python))), source: python };
  }
}

function* torchFolders(prefix: string): Generator<string> {
  const parents = [join(prefix, "lib"), join(prefix, "lib64"), join(prefix, "local", "lib")];
  for (const parent of parents) {
    for (const name of folderNames(parent)) {
      if (!/^python3(\.\d+)?$/.test(name)) continue;
      for (const packages of ["site-packages", "dist-packages"]) {
        const torch = join(parent, name, packages, "torch");
        if (existsSync(join(torch, "lib"))) yield realpathSync(torch);
      }
    }
  }
}

/** What is in a folder; nothing where there is no such folder, or none that can be read. */
export function folderNames(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
