import { type AdapterFolder, openAdapterFolder } from "../adapter/folder.js";
import {
  DEFAULT_ADAPTER,
  type HeldAdapter,
  type LoadedAdapters,
  requireAdapterName,
} from "../adapter/loaded.js";
import type { AdapterRecord } from "../adapter/record.js";
import { PeftTrainError } from "../errors.js";
import type { HubAccess } from "../hub/access.js";
import type { ModelFolder } from "../model/folder.js";
import type { ModelPrompts } from "../model/prompts.js";
import { encodingMaxLength } from "../model-tokenizer.js";
import type { NativeEncoder, Pooling, WeightStorage } from "../native/types.js";
import { type MergeAdapterOptions, type MergeAdapterResult, mergeHeld } from "./merge-adapter.js";
import type { EncodeQueue } from "./queue.js";

/** Which side of a pair a text is on, for the prefix that its adapter was trained with. */
export type Side = "question1Prefix" | "question2Prefix";

/** What a text gets unless a call says otherwise. */
export interface TextDefaults {
  /** Put before it. */
  prefix: string;
  /** Tokens, [CLS] and [SEP] counted. */
  maxLength: number;
}

/** What an encoder's adapters sit on. */
export interface AdapterBase {
  model: ModelFolder;
  /** What the model itself was trained with. */
  record: AdapterRecord | undefined;
  /** What sentence-transformers would put before texts. */
  prompts: ModelPrompts | undefined;
  pooling: Pooling;
  /** How its matrices are held; undefined for float32. */
  storage: WeightStorage | undefined;
}

/**
 * The adapters of an encoder: which one a call means, and how they come, go and merge. Changes take effect in the order in which they
 * were asked for, however long their files take; a call keeps the one that it found.
 */
export class EncoderAdapters {
  private changing: Promise<unknown> = Promise.resolve();
  /** Evaluations that go on: many calls, with an adapter that must stay. */
  private readonly measuring = new Set<Promise<unknown>>();

  constructor(
    private readonly base: AdapterBase,
    private readonly loaded: LoadedAdapters,
    private readonly native: NativeEncoder,
    private readonly queue: EncodeQueue,
    private readonly hub: HubAccess,
  ) {}

  /** The one that came with the model, while it is there. */
  get default(): AdapterFolder | undefined {
    return this.loaded.get(DEFAULT_ADAPTER)?.folder;
  }

  /** In the order in which their names came. */
  entries(): IterableIterator<[string, HeldAdapter]> {
    return this.loaded.entries();
  }

  /** The adapter that an option means, undefined for the base model. @throws USAGE */
  choose(adapter: boolean | string | undefined): HeldAdapter | undefined {
    return this.loaded.choose(adapter);
  }

  /** Texts of the base model are read as those of the adapter that came with it, so that the two can be compared. */
  readAs(held: HeldAdapter | undefined): AdapterFolder | undefined {
    return held?.folder ?? this.default;
  }

  /** What texts of an adapter, or of the model itself, get unless a call says otherwise. */
  defaultsOf(adapter: AdapterFolder | undefined, side: Side = "question1Prefix"): TextDefaults {
    const record = adapter?.record ?? this.base.record;
    return {
      prefix: this.prefixesOf(adapter)?.[side] ?? "",
      maxLength: record?.maxLength ?? encodingMaxLength(this.base.model),
    };
  }

  /** What goes before texts of an adapter, or of the model itself, as far as one of them says. */
  prefixesOf(adapter: AdapterFolder | undefined): ModelPrompts | undefined {
    return adapter?.record ?? this.base.record ?? this.base.prompts;
  }

  /** @returns What is worth a warning. */
  add(name: string, folder: string): Promise<string[]> {
    return this.inOrder(async () => {
      requireAdapterName(name);
      const adapter = await openAdapterFolder(folder, this.base.model, this.hub, this.base.storage);
      this.requirePooling(adapter);
      const id = this.loaded.newId(name);
      await this.queue.turn(() => this.native.loadAdapter(adapter.weightsPath, adapter.spec, id));
      const before = this.loaded.set(name, { id, folder: adapter });
      if (before === undefined) return adapter.warnings;
      void this.free(before);
      if (before.unmerged === undefined) return adapter.warnings;
      return [
        ...adapter.warnings,
        `${JSON.stringify(name)} was merged into the base; what replaces it is not`,
      ];
    });
  }

  remove(name: string): Promise<void> {
    return this.inOrder(async () => this.loaded.remove(name)).then((adapter) => this.free(adapter));
  }

  merge(name: string, options: MergeAdapterOptions): Promise<MergeAdapterResult> {
    return this.inOrder(async () => {
      this.queue.requireOpen();
      const unmerged = this.loaded.require(name);
      if (unmerged.unmerged !== undefined) {
        throw new PeftTrainError("USAGE", `${JSON.stringify(name)} is merged into the base already`, {
          hint: "To merge it in another way, call encoder.unmergeAdapter(name) first.",
        });
      }
      const { native, queue, base } = this;
      const id = this.loaded.newId(name);
      const settings = this.defaultsOf(unmerged.folder);
      const site = { native, queue, format: base.storage?.format ?? "float32", settings };
      const result = await mergeHeld(name, unmerged, id, site, options);
      this.loaded.set(name, { id, folder: unmerged.folder, unmerged });
      return result;
    });
  }

  unmerge(name: string): Promise<void> {
    return this.inOrder(async () => {
      this.queue.requireOpen();
      const { id, folder, unmerged } = this.loaded.require(name);
      if (unmerged === undefined) {
        throw new PeftTrainError("USAGE", `${JSON.stringify(name)} is not merged into the base`, {
          hint: "encoder.adapters says which are.",
        });
      }
      this.loaded.set(name, unmerged);
      return { id, folder };
    }).then((merged) => this.free(merged));
  }

  /** Keeps the adapters that are there now for as long as the work goes on. */
  async whileMeasuring<T>(work: () => Promise<T>): Promise<T> {
    const result = work();
    this.measuring.add(result);
    try {
      return await result;
    } finally {
      this.measuring.delete(result);
    }
  }

  private inOrder<T>(work: () => Promise<T>): Promise<T> {
    const result = this.changing.then(work);
    this.changing = result.catch(() => {});
    return result;
  }

  /** Frees what no call finds any more, its merge too, once those that found it have ended. */
  private async free({ id, unmerged }: HeldAdapter): Promise<void> {
    await Promise.allSettled([this.queue.drained(), ...this.measuring]);
    try {
      await this.queue.turn(() => this.native.removeAdapter(unmerged?.id ?? id));
    } catch (error) {
      // Closing the encoder has freed it.
      if (!(error instanceof PeftTrainError && error.code === "ENCODER_CLOSED")) throw error;
    }
  }

  /** @throws ADAPTER_MISMATCH: an encoder pools all texts alike. */
  private requirePooling({ path, record }: AdapterFolder): void {
    const { pooling } = this.base;
    if (record === undefined || record.pooling === pooling) return;
    throw new PeftTrainError(
      "ADAPTER_MISMATCH",
      `${path} was trained with ${record.pooling} pooling; this encoder pools by ${pooling}`,
      { hint: `Load it into an encoder of its own, with pooling: "${record.pooling}".` },
    );
  }
}
