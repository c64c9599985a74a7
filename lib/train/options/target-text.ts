import { PeftTrainError } from "../../errors.js";

/**
 * Reads a flag of target modules as typed: names with commas or blanks between, or one regular expression, or
 * `all-linear`.
 * @returns A list of names, the expression, or undefined where there is nothing.
 * @throws USAGE when a list holds an expression, which PEFT would take for a name that no module has.
 */
export function parseTargetText(text: string, flag: string): readonly string[] | string | undefined {
  const items = splitItems(text);
  const expression = items.find((item) => !/^[\w.]+$/.test(item));
  if (expression === undefined) return items.length > 0 ? items : undefined;
  if (items.length === 1) return expression;
  const keyword = expression.toLowerCase() === "all-linear";
  throw new PeftTrainError(
    "USAGE",
    `${flag}=${text}: expected names, found ${expression} among them, which is ${keyword ? "no name" : "a regular expression"}`,
    {
      hint: keyword
        ? "Give all-linear alone, or names."
        : "Give names alone, or all as one expression over whole names, such as '.*(query|output\\.dense)'.",
    },
  );
}

/** Splits at commas and blanks that stand in no bracket: `.{1,2}` is one item. */
function splitItems(text: string): string[] {
  const items: string[] = [];
  let item = "";
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const char = text[i] as string;
    if (text[i - 1] !== "\\") depth += "([{".includes(char) ? 1 : ")]}".includes(char) ? -1 : 0;
    if (depth <= 0 && /[\s,]/.test(char)) {
      items.push(item);
      item = "";
    } else {
      item += char;
    }
  }
  return [...items, item].filter((part) => part !== "");
}
