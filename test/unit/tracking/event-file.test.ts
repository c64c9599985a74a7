import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { crc32c } from "../../../lib/tracking/crc32c.js";
import { EventFile, encodeScalars, encodeVersion, record } from "../../../lib/tracking/event-file.js";
import { readEvents } from "../../support/event-file.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();
const golden = (name: string) => fileURLToPath(new URL(`../../fixtures/tracking/${name}`, import.meta.url));

describe("an event file", () => {
  it("has the bytes that Python's tensorboard writes", () => {
    const events: { wall_time: number; step: number; values: Record<string, number | "Infinity"> }[] =
      JSON.parse(readFileSync(golden("golden.json"), "utf8"));
    const written = [
      record(encodeVersion(1767225599500)),
      ...events.map(({ wall_time, step, values }) => {
        const numbers = Object.entries(values).map(([tag, value]): [string, number] => [tag, Number(value)]);
        return record(encodeScalars(1000 * wall_time, step, new Map(numbers)));
      }),
    ];
    expect(Buffer.concat(written).toString("hex")).toBe(readFileSync(golden("golden.tfevents"), "hex"));
  });

  it("is read back as it was written, and by its name found", () => {
    const now = 1767225600123;
    {
      using file = new EventFile(temporary.path(), now);
      file.scalars(7, new Map([["train/loss", 0.25]]), now);
      file.scalars(8, new Map(), now);
      expect(readEvents(file.path)).toHaveLength(1); // there already while the run goes on
    }
    const [name = ""] = readdirSync(temporary.path());
    expect(name).toMatch(/^events\.out\.tfevents\.1767225600\..+\.\d+\.0$/);
    expect(readEvents(temporary.path(name))).toEqual([
      { wallTime: now / 1000, step: 7, values: { "train/loss": 0.25 } },
    ]);
  });

  it("in a folder that is not there is refused", () => {
    expect(() => new EventFile(temporary.path("none"))).toThrow(
      expect.objectContaining({ code: "OUTPUT_UNWRITABLE" }),
    );
  });
});

it("CRC-32C is that of RFC 3720, appendix B.4", () => {
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
  expect(crc32c(new Uint8Array(32).fill(255))).toBe(0x62a8ab43);
  expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
  expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
});
