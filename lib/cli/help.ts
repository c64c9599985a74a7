import type { CommandModule, Options } from "yargs";

/** Flags that every command has and no command defines. */
const COMMON: Record<string, Options> = {
  help: { group: "Display:", describe: "Show this help" },
  version: { group: "Display:", describe: "Show the version" },
};
const WIDEST = 110;
/** Longer names get their text on the next line. */
const NAME_WIDTH = 30;

/**
 * Takes what a command's builder tells yargs and makes a page of it. Without yargs itself, which takes longer to load
 * and to lay out a page than everything else that `--help` needs.
 */
class HelpPage {
  private readonly flags = new Map<string, Options>();
  private readonly examples: [command: string, description: string][] = [];

  option(name: string | Record<string, Options>, options: Options = {}): this {
    const added = typeof name === "string" ? { [name]: options } : name;
    for (const [key, value] of Object.entries(added)) {
      this.flags.set(key, { ...this.flags.get(key), ...value });
    }
    return this;
  }

  options(options: Record<string, Options>): this {
    return this.option(options);
  }

  example(command: string, description: string): this {
    this.examples.push([command.replace("$0", "npx peft-train"), description]);
    return this;
  }

  render(usage: string, about: string, commands: Record<string, string>, width: number): string {
    const lines = [`Usage: ${usage}`, "", ...wrap(about, width), ""];
    if (Object.keys(commands).length > 0) {
      lines.push(
        "Commands:",
        ...Object.entries(commands).flatMap(([name, text]) => entry(name, text, width, 10)),
        "",
      );
    }
    const groups = new Map<string, string[]>();
    for (const [name, flag] of [...this.flags, ...Object.entries(COMMON)]) {
      if (flag.hidden) continue;
      const group = flag.group ?? "Options:";
      groups.set(group, [
        ...(groups.get(group) ?? []),
        ...entry(`--${name}`, describe(flag), width, NAME_WIDTH),
      ]);
    }
    for (const [group, entries] of groups) lines.push(group, ...entries, "");
    if (this.examples.length > 0) lines.push("Examples:");
    for (const [command, description] of this.examples) {
      if (description !== "") lines.push(`  # ${description}`);
      lines.push(`  ${command}`);
    }
    if (this.examples.length > 0) lines.push("");
    return [...lines, "Flags may be written with underscores or with dashes. More: docs/cli.md", ""].join(
      "\n",
    );
  }
}

/** The help text of a command. */
export async function helpText(
  usage: string,
  about: string,
  module: CommandModule<object, never>,
  commands: Record<string, string>,
): Promise<string> {
  const page = new HelpPage();
  await (module.builder as unknown as (page: HelpPage) => unknown)(page);
  return page.render(usage, about, commands, Math.min(WIDEST, process.stdout.columns ?? WIDEST));
}

function describe(flag: Options): string {
  const parts = [flag.describe ?? ""];
  if (flag.choices !== undefined) parts.push(`(${flag.choices.join(", ")})`);
  const fallback = flag.defaultDescription ?? (flag.default === false ? undefined : flag.default);
  if (flag.demandOption === true) parts.push("[required]");
  else if (fallback !== undefined) parts.push(`[${fallback}]`);
  return parts.join(" ");
}

/** A name and its text, which is wrapped beside it. */
function entry(name: string, text: string, width: number, nameWidth: number): string[] {
  const indent = " ".repeat(nameWidth + 3);
  const [first = "", ...rest] = wrap(text, width - indent.length);
  const lines = rest.map((line) => indent + line);
  if (name.length > nameWidth) return [`  ${name}`, indent + first, ...lines];
  return [`  ${name.padEnd(nameWidth)} ${first}`, ...lines];
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = "";
    }
    line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
