const NUMBERS = { SIGINT: 2, SIGTERM: 15 } as const;
type StopSignal = keyof typeof NUMBERS;

/**
 * Ctrl-C and `kill`: the first asks for a tidy end, the second ends the process at once. Handlers are taken back when
 * it is disposed.
 */
export class Interrupt implements Disposable {
  private received: StopSignal | undefined;
  private readonly handlers: Record<StopSignal, () => void>;

  constructor(private readonly stop: (signal: StopSignal) => void) {
    this.handlers = { SIGINT: () => this.handle("SIGINT"), SIGTERM: () => this.handle("SIGTERM") };
    for (const signal of Object.keys(NUMBERS) as StopSignal[]) process.on(signal, this.handlers[signal]);
  }

  /** 130 after Ctrl-C, 143 after SIGTERM, undefined when neither came: what a shell reports for them. */
  get exitCode(): number | undefined {
    return this.received === undefined ? undefined : 128 + NUMBERS[this.received];
  }

  [Symbol.dispose](): void {
    for (const signal of Object.keys(NUMBERS) as StopSignal[]) process.off(signal, this.handlers[signal]);
  }

  private handle(signal: StopSignal): void {
    if (this.received !== undefined) process.exit(128 + NUMBERS[signal]);
    this.received = signal;
    this.stop(signal);
  }
}
