import { nearest } from "../data/nearest.js";
import { PeftTrainError } from "../errors.js";
import type { AdapterFolder } from "./folder.js";

/** The name of the adapter that comes with `LoadOptions.adapter`, as in PEFT. */
export const DEFAULT_ADAPTER = "default";

/** An adapter that an encoder holds. */
export interface EncoderAdapter {
  /** What a call names it by. */
  name: string;
  /** Folder that it came from. */
  path: string;
  /** What its texts get as prefix and as greatest length unless a call says otherwise. */
  prefix: string;
  /** Tokens of a text, [CLS] and [SEP] counted. */
  maxLength: number;
  /** Whether its texts go through weights that it is merged into. */
  merged: boolean;
}

/** Which adapter the texts of a call are encoded with. */
export interface AdapterOptions {
  /** The name of one for all texts; false gives the embeddings of the base model. Default: the one that came with the model, if any. */
  adapter?: boolean | string | undefined;
  /** Instead: one entry a text, a name or false. Texts of different adapters run in one batch. */
  adapters?: readonly (string | false)[] | undefined;
}

/** An adapter that the engine holds, under a name that no other ever has: what replaces it gets another. */
export interface HeldAdapter {
  id: string;
  folder: AdapterFolder;
  /** Where `id` is its merge into the base: the adapter beside the base. */
  unmerged?: HeldAdapter;
}

/** The adapters of an encoder by name. */
export class LoadedAdapters {
  private readonly held = new Map<string, HeldAdapter>();
  private count = 0;

  get(name: string): HeldAdapter | undefined {
    return this.held.get(name);
  }

  /** A name for the engine. */
  newId(name: string): string {
    return `${name}#${++this.count}`;
  }

  /** @returns The one that had the name before. */
  set(name: string, adapter: HeldAdapter): HeldAdapter | undefined {
    const before = this.held.get(name);
    this.held.set(name, adapter);
    return before;
  }

  /** @throws USAGE for a name that no adapter has. */
  remove(name: string): HeldAdapter {
    const adapter = this.require(name);
    this.held.delete(name);
    return adapter;
  }

  /** In the order in which their names came. */
  entries(): IterableIterator<[string, HeldAdapter]> {
    return this.held.entries();
  }

  /** The adapter that an option means, undefined for the base model. @throws USAGE */
  choose(adapter: boolean | string = true): HeldAdapter | undefined {
    if (adapter === false) return undefined;
    if (adapter === true) return this.held.get(DEFAULT_ADAPTER);
    if (typeof adapter === "string") return this.require(adapter);
    throw new PeftTrainError("USAGE", `adapter: expected a name or false, found ${typeof adapter}`);
  }

  /** @throws USAGE for a name that no adapter has. */
  require(name: string): HeldAdapter {
    const adapter = this.held.get(name);
    if (adapter !== undefined) return adapter;
    requireAdapterName(name);
    const names = [...this.held.keys()];
    const meant = nearest(name, names);
    const loaded =
      names.length === 0 ? "none is" : `there are ${names.map((known) => JSON.stringify(known)).join(", ")}`;
    throw new PeftTrainError("USAGE", `no adapter ${JSON.stringify(name)} is loaded; ${loaded}`, {
      hint:
        meant === undefined
          ? "Load it with encoder.addAdapter(name, folder)."
          : `Did you mean ${JSON.stringify(meant)}?`,
    });
  }
}

/** @throws USAGE unless there is one entry for each of `count` texts. */
export function requireOneEach(adapters: unknown, count: number): void {
  if (Array.isArray(adapters) && adapters.length === count) return;
  const found = Array.isArray(adapters) ? String(adapters.length) : typeof adapters;
  throw new PeftTrainError("USAGE", `adapters: expected one name or false a text, ${count}, found ${found}`);
}

/** @throws USAGE */
export function requireAdapterName(name: unknown): void {
  if (typeof name === "string" && name !== "") return;
  throw new PeftTrainError("USAGE", `name of an adapter: expected a word, found ${JSON.stringify(name)}`);
}
