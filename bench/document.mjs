export const START = "<!-- bench:start, written by npm run bench -- --write -->";
export const END = "<!-- bench:end -->";

/** Puts `generated` between the two markers, which stand once each and in this order. */
export function replaceGenerated(text, generated) {
  const parts = text.split(START);
  const rest = parts[1]?.split(END);
  if (parts.length !== 2 || rest?.length !== 2)
    throw new Error(`expected the line ${START} once, and after it the line ${END} once`);
  return `${parts[0]}${START}\n\n${generated.trim()}\n\n${END}${rest[1]}`;
}
