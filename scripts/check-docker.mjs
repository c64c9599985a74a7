// npm run check:docker [-- --run]: checks Dockerfile and Dockerfile.cuda without a daemon.
//
// With --run (root, Linux) the steps of the CPU image are carried out one after another: each stage in a root of its own, an overlay over
// this machine's, which stands in for the image of Node and so must be a Debian with Node; its user, network and caches are this
// machine's. Nothing is left of it.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { contextNames, copyParts, dockerfileFaults, instructions } from "./dockerfile.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
let failed = 0;
for (const name of ["Dockerfile", "Dockerfile.cuda"]) {
  const faults = dockerfileFaults(join(root, name), root);
  for (const fault of faults) console.error(`${name}: ${fault}`);
  failed += faults.length;
  if (faults.length === 0) console.log(`${name}: every instruction is in order`);
}
if (failed > 0) process.exit(1);
if (process.argv.includes("--run")) carryOut();

function carryOut() {
  const work = mkdtempSync(join(tmpdir(), "peft-train-docker-"));
  const file = `${work}.sh`;
  writeFileSync(file, shellScript(instructions(readFileSync(join(root, "Dockerfile"), "utf8")), work));
  // Mounts of a name space of its own go when its last process ends.
  const { status, error } = spawnSync("unshare", ["--mount", "bash", file], { stdio: "inherit" });
  for (const each of [file, work]) rmSync(each, { recursive: true, force: true });
  if (error !== undefined || status !== 0) {
    console.error(`check:docker: a step failed (${error?.message ?? `status ${status}`})`);
    process.exit(1);
  }
  console.log("check:docker: every step was carried out");
}

function shellScript(steps, work) {
  const lines = ["set -euo pipefail", `work=${work}`, "mount -t tmpfs -o size=12g peft-train $work"];
  let stage = -1;
  const stages = {};
  let folder = "/";
  let environment = "";
  const rootOf = (index) => `$work/${index}/root`;
  for (const { keyword, text, line } of steps) {
    lines.push(`echo ${quote(`Dockerfile:${line}: ${keyword} ${text}`)}`);
    if (keyword === "FROM") {
      stage++;
      folder = "/";
      environment = "HOME=/root";
      const name = text.split(/\s+/)[2];
      if (name !== undefined) stages[name] = stage;
      lines.push(`mkdir -p $work/${stage}/{upper,scratch,root}`);
      lines.push(
        `mount -t overlay -o lowerdir=/,upperdir=$work/${stage}/upper,workdir=$work/${stage}/scratch overlay ${rootOf(stage)}`,
      );
      for (const each of ["proc", "dev", "sys"])
        lines.push(`mount --rbind /${each} ${rootOf(stage)}/${each}`);
      // As in the image of Node.
      lines.push(`chroot ${rootOf(stage)} sh -c 'id node >/dev/null 2>&1 || useradd --create-home node'`);
    }
    if (keyword === "ENV") environment += ` ${text}`;
    if (keyword === "WORKDIR") {
      folder = text;
      lines.push(`mkdir -p ${rootOf(stage)}${folder}`);
    }
    if (keyword === "COPY") lines.push(...copyLines(text, { stages, rootOf, stage, folder }));
    if (keyword === "RUN") {
      const command = `cd ${folder} && ${text}`;
      lines.push(`env ${environment} chroot ${rootOf(stage)} sh -c ${quote(command)}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

function copyLines(text, { stages, rootOf, stage, folder }) {
  const { from, sources, target } = copyParts(text);
  const place = `${rootOf(stage)}${target.startsWith("/") ? target : join(folder, target)}`;
  if (from !== undefined) return sources.map((source) => `cp -r ${rootOf(stages[from])}${source} ${place}`);
  const names = sources.flatMap((source) => (source === "." ? contextNames(root) : [source]));
  const inside = target.startsWith("/") ? target : join(folder, target);
  const unpack = `chroot ${rootOf(stage)} tar --unlink-first -x -C ${inside}`;
  return [`tar -c -C ${quote(root)} ${names.map(quote).join(" ")} | ${unpack}`];
}

function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
