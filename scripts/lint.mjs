// npm run lint: every check, even after one that failed.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const bin = (name) => `node_modules/.bin/${name}`;

const listed = spawnSync(
  "git",
  ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"],
  {
    cwd: root,
  },
);
if (listed.status !== 0) {
  console.error("lint needs a git checkout");
  process.exit(1);
}
const deleted = new Set(
  spawnSync("git", ["ls-files", "-z", "--deleted"], { cwd: root }).stdout.toString().split("\0"),
);
const files = listed.stdout
  .toString()
  .split("\0")
  .filter((file) => file !== "" && !deleted.has(file));
const matching = (pattern) => files.filter((file) => pattern.test(file));

const checks = [
  ["TypeScript", bin("tsc"), ["-p", "tsconfig.test.json"]], // tests as well as lib
  ["Biome", bin("biome"), ["check", "--error-on-warnings"]],
  [
    "clang-format",
    bin("clang-format"),
    ["--dry-run", "--Werror", ...matching(/^(native|test\/native)\/.*\.(cc|cu|h)$/)],
  ],
  [
    "Python compiles",
    "python3",
    [
      "-c",
      "import sys\nfor f in sys.argv[1:]: compile(open(f, 'rb').read(), f, 'exec')",
      ...matching(/\.py$/),
    ],
  ],
  ["bash parses", "bash", ["-n", ".ci/run"]],
];

let failed = 0;
for (const [name, command, args] of checks) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  const ok = error === undefined && status === 0;
  if (!ok) failed++;
  console.log(`lint: ${name}: ${ok ? "ok" : `failed${error ? ` (${error.message})` : ""}`}`);
}
process.exit(failed === 0 ? 0 : 1);
