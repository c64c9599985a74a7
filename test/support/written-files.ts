import { writeFile } from "node:fs/promises";
import { temporaryFolder } from "./temporary-folder.js";

/** Writes files of given content into a temporary folder of the test file, each under a name of its own. */
export function writtenFiles(): (content: string | Uint8Array, extension?: string) => Promise<string> {
  const temporary = temporaryFolder();
  let files = 0;
  return async (content, extension = "csv") => {
    const name = temporary.path(`${files++}.${extension}`);
    await writeFile(name, content);
    return name;
  };
}
