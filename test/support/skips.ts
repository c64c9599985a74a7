/** Whether tests are to be left out, for `skipIf`; prints why they are. */
export function skips(condition: boolean, reason: string): boolean {
  if (condition) console.log(`skipped: ${reason}`);
  return condition;
}
