import { ByteProgress } from "./byte-progress.js";

/** What loading a model of the Hub shows on stderr. */
export class DownloadProgress implements Disposable {
  private shown: { file: string; bytes: ByteProgress } | undefined;

  constructor(private readonly quiet: boolean) {}

  readonly onDownload = (file: string, bytesDone: number, bytesTotal: number): void => {
    if (this.quiet) return;
    if (this.shown?.file !== file) {
      this.stop();
      this.shown = { file, bytes: new ByteProgress(`Downloading ${file}`) };
    }
    this.shown.bytes.update(bytesDone, bytesTotal);
    if (bytesDone === bytesTotal) this.stop();
  };

  readonly onNote = (message: string): void => {
    this.stop();
    process.stderr.write(`warning: ${message}\n`);
  };

  [Symbol.dispose](): void {
    this.stop();
  }

  private stop(): void {
    this.shown?.bytes.stop();
    this.shown = undefined;
  }
}
