import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { describe, it } from "vitest";
import { refusals } from "../support/refusals.js";

const { temporary, runHere, trainArgs, expectRefusal } = refusals();
const HEADER = "id,question1,question2,is_duplicate";

describe("data that cannot be trained on is refused in one line", () => {
  const cases: [title: string, content: string | Buffer | undefined, message: RegExp][] = [
    ["a missing file", undefined, /there is no file bad\.csv/],
    ["an empty file", "", /bad\.csv/],
    ["a header alone", `${HEADER}\n`, /bad\.csv has a header and no rows/],
    ["a missing column", "id,question1,question2,is_dup\n1,a,b,1\n", /no column "is_duplicate".*is_dup/],
    ["a label that is not 0 or 1", `${HEADER}\n1,a,b,1\n2,c,d,2\n`, /row 3: expected 0 or 1.*"2"/],
    ["a label that is a word", `${HEADER}\n1,a,b,true\n`, /row 2: expected 0 or 1.*"true"/],
    ["a missing label", `${HEADER}\n1,a,b,\n`, /row 2: expected 0 or 1.*""/],
    ["a ragged row", `${HEADER}\n1,a,b,1\n2,c,d,0,e\n`, /row 3: expected 4 fields.*found 5/],
    ["a short row", `${HEADER}\n1,a,b,1\n2,c\n`, /row 3: expected 4 fields.*found 2/],
    [
      "an unterminated quote",
      `${HEADER}\n1,a,b,1\n2,"c,d,0\n3,e,f,1\n`,
      /row 3: the quoted field.*never closed/,
    ],
    ["one class only", `${HEADER}\n1,a,b,1\n2,c,d,1\n`, /all 2 labels in column is_duplicate are 1/],
    ["bytes that are not UTF-8", Buffer.from(`${HEADER}\n1,caf\xe9,b,1\n`, "latin1"), /byte 0xE9/],
    ["UTF-16", Buffer.from(`\ufeff${HEADER}\n`, "utf16le"), /UTF-16/],
  ];
  for (const [title, content, message] of cases) {
    it(title, async () => {
      if (content !== undefined) writeFileSync(temporary.path("bad.csv"), content);
      else rmSync(temporary.path("bad.csv"), { force: true });
      expectRefusal(await runHere(trainArgs({ dataset_name: "bad.csv" })), 1, message);
    });
  }

  it("in the evaluation file too, before training", async () => {
    writeFileSync(temporary.path("bad.csv"), `${HEADER}\n1,a,b,0\n`);
    expectRefusal(await runHere(trainArgs({ eval_dataset_name: "bad.csv" })), 1, /bad\.csv: all 1 labels/);
    rmSync(temporary.path("bad.csv"));
    expectRefusal(await runHere(trainArgs({ eval_dataset_name: "bad.csv" })), 1, /there is no file bad\.csv/);
  });
});

describe("files as other systems write them are read", () => {
  it("with a byte order mark and CRLF", async () => {
    const text = readFileSync(temporary.path("train.csv"), "utf8").replaceAll("\n", "\r\n");
    writeFileSync(temporary.path("windows.csv"), `\ufeff${text}`);
    expectRefusal(await runHere(trainArgs({ dataset_name: "windows.csv" })), 1, /PEFT_TRAIN_LIBTORCH/);
  });
});
