import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { crc32, deflateRawSync } from "node:zlib";
import type { PinnedWheel } from "../../lib/setup/wheels.js";

/** A zip file, by the format's own description (APPNOTE 6.3). */
export function zip(files: Record<string, Buffer>): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [name, content] of Object.entries(files)) {
    const packed = deflateRawSync(content);
    const path = Buffer.from(name);
    const common = Buffer.alloc(26); // from "version needed" to the length of extra fields
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(8, 4); // deflate
    common.writeUInt32LE(crc32(content), 10);
    common.writeUInt32LE(packed.length, 14);
    common.writeUInt32LE(content.length, 18);
    common.writeUInt16LE(path.length, 22);
    parts.push(Buffer.from("PK\x03\x04"), common, path, packed);
    const tail = Buffer.alloc(14); // comment, disk, attributes, offset
    tail.writeUInt32LE(offset, 10);
    directory.push(Buffer.from("PK\x01\x02"), Buffer.from([20, 3]), common, tail, path);
    offset += 30 + path.length + packed.length;
  }
  const listing = Buffer.concat(directory);
  const end = Buffer.alloc(18);
  const count = Object.keys(files).length;
  for (const at of [4, 6]) end.writeUInt16LE(count, at);
  end.writeUInt32LE(listing.length, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...parts, listing, Buffer.from("PK\x05\x06"), end]);
}

export interface FakeWheel extends PinnedWheel {
  content: Buffer;
}

/** A wheel of `project` with these files and the RECORD that goes with them. */
export function makeWheel(
  project: string,
  version: string,
  files: Record<string, string>,
  tag: string,
): FakeWheel {
  const name = project.replaceAll("-", "_");
  const all = Object.fromEntries(Object.entries(files).map(([path, text]) => [path, Buffer.from(text)]));
  const record = Object.entries(all).map(([path, content]) => {
    const digest = createHash("sha256").update(content).digest("base64url");
    return `${path},sha256=${digest},${content.length}\n`;
  });
  const info = `${name}-${version}.dist-info`;
  all[`${info}/RECORD`] = Buffer.from(`${record.join("")}${info}/RECORD,,\n`);
  const content = zip(all);
  const sha256 = createHash("sha256").update(content).digest("hex");
  return { project, file: `${name}-${version}-${tag}.whl`, sha256, content };
}

const MACHINE = process.arch === "arm64" ? "aarch64" : "x86_64";

/** What an index has for torch: torch for CUDA (or not) and the two packages that its CPU half needs. */
export function makeTorchWheels(version: string, cuda: string | null = "13.0"): FakeWheel[] {
  const torch: Record<string, string> = {
    "torch/version.py": `__version__ = '${version}+local'\ncuda: Optional[str] = ${cuda ? `'${cuda}'` : "None"}\n`,
    "torch/__init__.py": "python",
    "torch/include/a.h": "//",
    "torch/lib/libc10.so": "c10",
    "torch/lib/libtorch_cpu.so": "c".repeat(200_000),
    "torch/lib/libtorch.so": "both",
    "torch/lib/libtorch_cuda.so": "cuda",
    [`torch-${version}.dist-info/METADATA`]: "Name: torch",
  };
  const tag = `cp312-cp312-manylinux_2_28_${MACHINE}`;
  const shared = `py3-none-manylinux2014_${MACHINE}`;
  return [
    makeWheel("torch", cuda === null ? `${version}+cpu` : version, torch, tag),
    makeWheel(
      "nvidia-cuda-runtime",
      "13.0.96",
      { "nvidia/cu13/lib/libcudart.so.13": "cudart", "nvidia/cu13/include/a.h": "//" },
      shared,
    ),
    makeWheel("nvidia-cuda-cupti", "13.0.85", { "nvidia/cu13/lib/libcupti.so.13": "cupti" }, shared),
  ];
}

/** Puts wheels into a folder. */
export function writeWheels(folder: string, wheels: readonly FakeWheel[]): string {
  for (const { file, content } of wheels) {
    mkdirSync(dirname(`${folder}/${file}`), { recursive: true });
    writeFileSync(`${folder}/${file}`, content);
  }
  return folder;
}
