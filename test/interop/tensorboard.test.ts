import { expect, it } from "vitest";
import { EventFile } from "../../lib/tracking/event-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { python } from "./python.js";

const temporary = temporaryFolder();
const READ = `
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}))
`;

it("Python's tensorboard reads what is written here", async () => {
  {
    using file = new EventFile(temporary.path());
    for (let step = 0; step < 1000; step++) {
      file.scalars(
        step,
        new Map([
          ["train/loss", 1 / (step + 1)],
          ["eval/roc_auc", step / 1000],
        ]),
      );
    }
  }
  const read: Record<string, [number, number][]> = await python(READ, [temporary.path()]);
  expect(Object.keys(read).sort()).toEqual(["eval/roc_auc", "train/loss"]);
  expect(read["train/loss"]).toEqual(Array.from({ length: 1000 }, (_, i) => [i, Math.fround(1 / (i + 1))]));
});
