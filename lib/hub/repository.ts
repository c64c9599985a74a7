/** A model repository on the Hub, at a branch, tag or commit. */
export interface Repository {
  /** `owner/name`, or `name` alone for the oldest models. */
  id: string;
  revision: string;
}

const PART = "[A-Za-z0-9](?:[\\w.-]{0,94}[\\w])?";
const NAME: RegExp = new RegExp(`^(${PART}(?:/${PART})?)(?:@([\\w][\\w./-]*))?$`);

/** Reads `owner/name` or `owner/name@revision`; undefined for what can only be a path. */
export function parseRepository(text: string): Repository | undefined {
  const [, id, revision = "main"] = NAME.exec(text) ?? [];
  // The Hub allows neither; in the cache, -- stands for the slash.
  if (id === undefined || /--|\.\./.test(id) || /\.\.|\/\/|\/$|\.lock$/.test(revision)) return undefined;
  return { id, revision };
}

export function repositoryText({ id, revision }: Repository): string {
  return revision === "main" ? id : `${id}@${revision}`;
}
