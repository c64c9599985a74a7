import { PeftTrainError } from "../errors.js";

/**
 * Translates a pattern of Python's `re` module, the language of PEFT's target_modules, into a JavaScript source.
 * What means the same is kept; group names and anchors are rewritten; a construct that JavaScript has not, or reads
 * otherwise, is refused by name instead of matching something else.
 * @throws USAGE
 */
export function translatePythonRegex(pattern: string): string {
  let out = "";
  let i = 0;
  while (i < pattern.length) {
    const char = pattern[i] as string;
    if (char === "\\") {
      out += translateEscape(pattern, i);
      i += 2;
    } else if (char === "[") {
      const end = endOfClass(pattern, i);
      out += translateClass(pattern.slice(i, end));
      i = end;
    } else if (char === "(" && pattern[i + 1] === "?") {
      const [group, length] = translateGroup(pattern, i);
      out += group;
      i += length;
    } else if ("*+?}".includes(char) && pattern[i + 1] === "+") {
      throw refused(pattern, `the possessive quantifier ${char}+`);
    } else {
      out += char;
      i++;
    }
  }
  return out;
}

/** A pattern that must match a whole name, as `re.fullmatch`. */
export function fullMatch(pattern: string): (name: string) => boolean {
  const regex = compile(`^(?:${translatePythonRegex(pattern)})$`, pattern);
  return (name) => regex.test(name);
}

/** How PEFT looks up rank_pattern and alpha_pattern: `re.match(rf"(.*\.)?({key})$", name)`. */
export function suffixMatch(pattern: string): (name: string) => boolean {
  const regex = compile(`^(?:.*\\.)?(?:${translatePythonRegex(pattern)})$`, pattern);
  return (name) => regex.test(name);
}

function compile(source: string, pattern: string): RegExp {
  try {
    return new RegExp(source);
  } catch (cause) {
    throw new PeftTrainError("USAGE", `${JSON.stringify(pattern)} is not a valid regular expression`, {
      hint: (cause as Error).message,
      cause,
    });
  }
}

function translateEscape(pattern: string, at: number): string {
  const char = pattern[at + 1];
  if (char === undefined) throw refused(pattern, "a backslash at the end");
  if (char === "A") return "^";
  if (char === "Z") return "$";
  // Python refuses other ASCII letters; JavaScript takes them for the letter itself.
  if (/[a-zA-Z]/.test(char) && !"abBdDfnrsStvwWxu".includes(char)) throw refused(pattern, `\\${char}`);
  return char === "a" ? "\\x07" : `\\${char}`;
}

/** A `]` that comes first stands for itself in Python. */
function endOfClass(pattern: string, start: number): number {
  let i = start + 1;
  if (pattern[i] === "^") i++;
  if (pattern[i] === "]") i++;
  while (i < pattern.length && pattern[i] !== "]") i += pattern[i] === "\\" ? 2 : 1;
  if (i >= pattern.length) throw refused(pattern, "a [ without its ]");
  return i + 1;
}

function translateClass(source: string): string {
  const negated = source[1] === "^";
  const body = source.slice(negated ? 2 : 1, -1);
  return `[${negated ? "^" : ""}${body.startsWith("]") ? `\\${body}` : body}]`;
}

/** The group that starts at `at`, and how many characters of the pattern it took. */
function translateGroup(pattern: string, at: number): [text: string, length: number] {
  const rest = pattern.slice(at);
  for (const same of ["(?:", "(?=", "(?!", "(?<=", "(?<!"]) {
    if (rest.startsWith(same)) return [same, same.length];
  }
  const named = /^\(\?P<([A-Za-z_]\w*)>/.exec(rest);
  if (named !== null) return [`(?<${named[1]}>`, named[0].length];
  const reference = /^\(\?P=([A-Za-z_]\w*)\)/.exec(rest);
  if (reference !== null) return [`\\k<${reference[1]}>`, reference[0].length];
  throw refused(pattern, rest.slice(0, 4));
}

function refused(pattern: string, what: string): PeftTrainError {
  return new PeftTrainError(
    "USAGE",
    `the regular expression ${JSON.stringify(pattern)} has ${what}, which is not supported`,
    { hint: "Use groups, classes, alternatives and quantifiers, or give a list of names." },
  );
}
