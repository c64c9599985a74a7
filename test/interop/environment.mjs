import path from "node:path";
import { cacheFolder } from "../../dist/setup/cache.js";
import { NO_NETWORK, once, pip, virtualEnvironment } from "../../scripts/python-environment.mjs";

/**
 * A Python with the pinned packages, and one more set of packages with the oldest supported PEFT in front of them.
 * @returns {{ program: string, env: Record<string, string>, oldest: Record<string, string> }}
 */
export function preparePython(root, say) {
  const cache = path.join(cacheFolder(), "interop");
  const requirements = (name) => path.join(root, "test/interop", name);
  const program =
    process.env.PEFT_TRAIN_INTEROP_PYTHON ||
    virtualEnvironment(
      path.join(cache, "venv"),
      [requirements("requirements.txt")],
      [requirements("requirements-torch.txt")],
      say,
    );
  const oldest = path.join(cache, "oldest");
  const packages = path.join(oldest, "packages");
  once(oldest, program, [requirements("requirements-oldest.txt")], () => {
    say(`installing the oldest supported PEFT in ${oldest}`);
    pip(program, ["--no-deps", "--target", packages, "-r", requirements("requirements-oldest.txt")]);
  });
  return { program, env: NO_NETWORK, oldest: { ...NO_NETWORK, PYTHONPATH: packages } };
}
