import { mkdirSync, writeFileSync } from "node:fs";
import { expect, it } from "vitest";
import { unpackWheel } from "../../../lib/setup/unpack.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { makeWheel } from "../../support/wheel.js";

const temporary = temporaryFolder();

it("whatever bit of a packed file is flipped, there is one error and none beside it", async () => {
  const name = "torch/lib/libc10.so";
  const { content } = makeWheel("torch", "1.0", { [name]: "c10" }, "any");
  const start = content.indexOf(name) + name.length;
  mkdirSync(temporary.path("wheels"));
  const wheel = temporary.path("wheels", "torch.whl");
  const options = { keep: () => true, onBytes: () => {}, signal: new AbortController().signal };
  // Each into a new folder: an error that came while it was made once found no listener, and ended the process.
  for (let bit = 0; bit < 5 * 8; bit++) {
    const damaged = Buffer.from(content);
    const at = start + Math.floor(bit / 8);
    damaged.writeUInt8(damaged.readUInt8(at) ^ (1 << (bit % 8)), at);
    writeFileSync(wheel, damaged);
    const outcome = unpackWheel(wheel, temporary.path(`unpacked-${bit}`), options);
    // The last byte ends in bits that say nothing.
    if (bit < 4 * 8) await expect(outcome, `bit ${bit}`).rejects.toMatchObject({ code: "DOWNLOAD_FAILED" });
    else await outcome.catch(() => {});
  }
});
