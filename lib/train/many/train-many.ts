import { nearest } from "../../data/nearest.js";
import { PeftTrainError } from "../../errors.js";
import { loadEngine } from "../../native/load.js";
import { requireKnownOptions, requireObject } from "../../option-names.js";
import { EventQueue } from "../event-queue.js";
import type { TrainEvent, TrainResult } from "../events.js";
import type { TrainOptions } from "../options/options.js";
import { isProgress, TRAIN_ENVIRONMENT, type TrainEnvironment, TrainRun } from "../train.js";
import { requireApart } from "./output-folders.js";
import { SharedEncoder } from "./shared-encoder.js";

/** An event of one tenant's run. */
export type TenantEvent = TrainEvent & {
  /** Name of the tenant. */
  tenant: string;
};

/** What became of one tenant's run. */
export type TenantOutcome = {
  /** Name of the tenant. */
  tenant: string;
} & (
  | {
      /** What the run has come to. */
      result: TrainResult;
      /** None. */
      error?: undefined;
    }
  | {
      /** None. */
      result?: undefined;
      /** What ended the run. */
      error: unknown;
    }
);

/**
 * Trains several adapters at once over one base model that is loaded once: each tenant's run is the one that `train` would make of its
 * options, with an output folder, checkpoints and a report of its own, and leaves the same bytes; the runs take turns step by step.
 *
 * Nothing is trained before every tenant's options and data are read and found good. After that a run that fails ends alone.
 *
 * @example
 * const run = trainMany({ support: { ...shared, datasetName: "support.csv", outputDir: "out/support" }, sales: { ... } });
 * for await (const event of run) if (event.event === "log") console.log(event.tenant, event.step, event.loss);
 * for (const { tenant, error } of await run.outcomes) if (error) console.error(tenant, error);
 */
export function trainMany(
  tenants: Readonly<Record<string, TrainOptions>>,
  environment: TrainEnvironment = {},
): TrainManyRun {
  return new TrainManyRun(tenants, environment);
}

/** Training runs of several tenants that are going on. */
export class TrainManyRun implements AsyncIterable<TenantEvent>, AsyncDisposable {
  /** In the order of the tenants. Rejects where none was trained: for options that do not go together, or a tenant that cannot begin. */
  readonly outcomes: Promise<TenantOutcome[]>;
  private readonly events = new EventQueue<TenantEvent>(isProgress);
  private readonly runs = new Map<string, TrainRun>();
  private readonly stopped = new Set<string>();
  private begun = false;

  constructor(tenants: Readonly<Record<string, TrainOptions>>, environment: TrainEnvironment) {
    this.outcomes = this.run(tenants, environment);
    this.outcomes.then(
      () => this.events.end(),
      (error: unknown) => this.events.end({ error }),
    );
  }

  /** Ends one tenant's run, or all, as `TrainRun.stop` does. */
  stop(tenant?: string): void {
    if (tenant === undefined) {
      for (const run of this.runs.values()) run.stop();
      return;
    }
    const run = this.runs.get(tenant);
    if (run === undefined) throw unknownTenant(tenant, [...this.runs.keys()]);
    this.stopped.add(tenant);
    run.stop();
  }

  /** Events of all runs as they come; the iteration throws what the runs throw. */
  [Symbol.asyncIterator](): AsyncIterator<TenantEvent> {
    return this.events[Symbol.asyncIterator]();
  }

  /** Stops all runs, and waits until they have ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
    await this.outcomes.catch(() => {});
  }

  private async run(
    tenants: Readonly<Record<string, TrainOptions>>,
    environment: TrainEnvironment,
  ): Promise<TenantOutcome[]> {
    requireObject(tenants, "trainMany");
    requireKnownOptions(environment, TRAIN_ENVIRONMENT, "trainMany");
    for (const [tenant, options] of Object.entries(tenants)) requireObject(options, tenant);
    const names = Object.keys(tenants);
    if (names.length === 0) throw new PeftTrainError("USAGE", "expected at least one tenant, found none");
    requireApart(tenants);
    let engine: ReturnType<typeof loadEngine> | Promise<ReturnType<typeof loadEngine>> | undefined;
    const shared = new SharedEncoder(() => {
      engine ??= (environment.engine ?? loadEngine)();
      return engine;
    }, names);
    let failure: { error: unknown } | undefined;
    const outcomes = await Promise.all(
      Object.entries(tenants).map(async ([tenant, options]): Promise<TenantOutcome> => {
        const run = new TrainRun(options, { engine: () => shared.engineOf(tenant) });
        this.runs.set(tenant, run);
        try {
          for await (const event of run) {
            if (event.event === "started") this.begun = true;
            this.events.push({ ...event, tenant });
          }
          return { tenant, result: await run.result };
        } catch (error) {
          // What one tenant lacks is told before any of them has trained for nothing.
          const cannotBegin = !this.begun && !this.stopped.has(tenant) && !isAborted(error);
          if (cannotBegin && failure === undefined) {
            failure = { error: inTenant(tenant, error) };
            shared.abort();
            this.stop();
          }
          return { tenant, error };
        } finally {
          shared.leave(tenant);
        }
      }),
    );
    if (failure !== undefined) throw failure.error;
    const [first] = outcomes;
    if (!this.begun && first?.error !== undefined) throw first.error;
    return outcomes;
  }
}

/** The same error, with the tenant that it is of. */
export function inTenant(tenant: string, error: unknown): unknown {
  if (!(error instanceof PeftTrainError)) return error;
  const { code, message, hint } = error;
  return new PeftTrainError(code, `${tenant}: ${message}`, {
    ...(hint !== undefined && { hint }),
    cause: error,
  });
}

function isAborted(error: unknown): boolean {
  return error instanceof PeftTrainError && error.code === "ABORTED";
}

function unknownTenant(name: string, names: readonly string[]): PeftTrainError {
  const meant = nearest(name, names);
  return new PeftTrainError("USAGE", `no tenant ${JSON.stringify(name)} is being trained`, {
    hint: meant === undefined ? `There are ${names.join(", ")}.` : `Did you mean ${meant}?`,
  });
}
