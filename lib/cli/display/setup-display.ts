import type { SetupProgress } from "../../setup/install.js";
import { ByteProgress } from "./byte-progress.js";

/** Shows on stderr how set-up comes along: a bar on a terminal, a few plain lines elsewhere. */
export class SetupDisplay implements Disposable {
  private bar: ByteProgress | undefined;
  private phase: SetupProgress["phase"] | undefined;

  constructor(private readonly stream: NodeJS.WriteStream = process.stderr) {}

  readonly update = (progress: SetupProgress): void => {
    if (progress.phase !== this.phase) this.enter(progress);
    if (progress.phase === "fetch") this.bar?.update(progress.bytes, progress.totalBytes);
  };

  readonly note = (message: string): void => this.line(message);

  [Symbol.dispose](): void {
    this.bar?.stop();
  }

  private enter({ phase, version, source, folder, totalBytes }: SetupProgress): void {
    this.phase = phase;
    this.bar?.stop();
    this.bar = undefined;
    const size = `${(totalBytes / 1e9).toFixed(1)} GB`;
    if (phase === "wait") this.line(`Another process is fetching libtorch ${version}; waiting for it.`);
    if (phase === "prune") this.line("Keeping what is needed.");
    if (phase === "done") this.line(`libtorch ${version} is in ${folder}`);
    if (phase !== "fetch") return;
    this.line(
      `Fetching libtorch ${version} ${source === "pip" ? "with" : "from"} ${source}, once, about ${size} with unpacking.`,
    );
    this.bar = new ByteProgress(`libtorch ${version}`, this.stream);
  }

  private line(text: string): void {
    this.stream.write(`${text}\n`);
  }
}
