import { expect, it } from "vitest";
import { EventQueue } from "../../../lib/train/event-queue.js";

/** Events are numbers; odd ones are progress. */
const newQueue = () => new EventQueue<number>((event) => event % 2 === 1);

async function rest(queue: EventQueue<number>): Promise<number[]> {
  const events: number[] = [];
  for await (const event of queue) events.push(event);
  return events;
}

it("while nobody iterates, progress is not kept and everything else is", async () => {
  const queue = newQueue();
  for (let i = 0; i < 10; i++) queue.push(i);
  queue.end();
  expect(await rest(queue)).toEqual([0, 2, 4, 6, 8]);
});

it("whoever iterates gets every event from then on, however late it asks for the next", async () => {
  const queue = newQueue();
  queue.push(1);
  const iterator = queue[Symbol.asyncIterator]();
  for (let i = 2; i < 6; i++) queue.push(i);
  queue.end();
  expect(await rest(iterator)).toEqual([2, 3, 4, 5]);
});

it("an iteration that was left may be taken up again", async () => {
  const queue = newQueue();
  queue.push(2);
  for await (const event of queue) {
    expect(event).toBe(2);
    break;
  }
  for (let i = 3; i < 7; i++) queue.push(i);
  queue.end({ error: new Error("the run failed") });
  const iterator = queue[Symbol.asyncIterator]();
  expect(await iterator.next()).toEqual({ done: false, value: 4 });
  expect(await iterator.next()).toEqual({ done: false, value: 6 });
  await expect(iterator.next()).rejects.toThrow("the run failed");
  expect(await iterator.next()).toEqual({ done: true, value: undefined });
});
