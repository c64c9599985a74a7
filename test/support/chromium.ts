import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import type { Readable, Writable } from "node:stream";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

/** PEFT_TRAIN_CHROMIUM, or the first browser of its kind on PATH. */
export function findChromium(): string | undefined {
  const named = process.env.PEFT_TRAIN_CHROMIUM;
  if (named) return named;
  const folders = (process.env.PATH ?? "").split(delimiter);
  return folders.flatMap((folder) => NAMES.map((name) => join(folder, name))).find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

interface Reply {
  id?: number;
  method?: string;
  sessionId?: string;
  result?: Record<string, unknown>;
  params?: Record<string, unknown>;
  error?: { message: string };
}

/** A page in a headless Chromium, driven over its debugging pipe: a few commands, for which a library would be large. */
export class ChromiumPage implements AsyncDisposable {
  /** What the page's console and the browser's log said, and requests that were made. */
  readonly complaints: string[] = [];
  readonly requests: string[] = [];
  private nextId = 1;
  private readonly waiting = new Map<number, (reply: Reply) => void>();
  private loaded: () => void = () => {};
  private session: string | undefined;
  private rest = "";

  private constructor(
    private readonly child: ChildProcess,
    private readonly input: Writable,
    output: Readable,
  ) {
    output.setEncoding("utf8").on("data", (text: string) => {
      const messages = (this.rest + text).split("\0");
      this.rest = messages.pop() as string;
      for (const message of messages) this.receive(JSON.parse(message) as Reply);
    });
  }

  static async open(browser: string, profile: string): Promise<ChromiumPage> {
    const flags = [
      "--headless=new",
      "--no-sandbox",
      "--disable-gpu",
      "--remote-debugging-pipe",
      "--no-first-run",
    ];
    const child = spawn(browser, [...flags, `--user-data-dir=${profile}`, "about:blank"], {
      stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
    });
    const [input, output] = [child.stdio[3] as Writable, child.stdio[4] as Readable];
    const page = new ChromiumPage(child, input, output);
    const { targetId } = await page.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await page.send("Target.attachToTarget", { targetId, flatten: true });
    page.session = sessionId as string;
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await page.send(`${domain}.enable`);
    return page;
  }

  async goto(url: string): Promise<void> {
    const loaded = new Promise<void>((resolve) => {
      this.loaded = resolve;
    });
    await this.send("Page.navigate", { url });
    await loaded;
  }

  /** Value of an expression in the page. */
  async evaluate<T>(expression: string): Promise<T> {
    const reply = await this.send("Runtime.evaluate", {
      expression,
      returnByValue: true,
      awaitPromise: true,
    });
    if (reply.exceptionDetails !== undefined) throw new Error(JSON.stringify(reply.exceptionDetails));
    return (reply.result as { value: T }).value;
  }

  async size(width: number, height: number): Promise<void> {
    await this.send("Emulation.setDeviceMetricsOverride", {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: width < 600,
    });
  }

  async colors(scheme: "light" | "dark"): Promise<void> {
    const features = [{ name: "prefers-color-scheme", value: scheme }];
    await this.send("Emulation.setEmulatedMedia", { features });
  }

  /** Without it a page is as one that has scripts switched off. */
  async scripts(enabled: boolean): Promise<void> {
    await this.send("Emulation.setScriptExecutionDisabled", { value: !enabled });
  }

  /** Moves the mouse to the middle of an element, or to a part of its width, and clicks where `click` says so. */
  async point(selector: string, { across = 0.5, click = false } = {}): Promise<void> {
    const find = `(() => { const e = document.querySelector(${JSON.stringify(selector)}); e.scrollIntoView({ block: "center" });
      const b = e.getBoundingClientRect(); return [b.left + b.width * ${across}, b.top + b.height / 2]; })()`;
    const [x, y] = await this.evaluate<[number, number]>(find);
    await this.send("Input.dispatchMouseEvent", { type: "mouseMoved", x, y });
    if (!click) return;
    for (const type of ["mousePressed", "mouseReleased"]) {
      await this.send("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
    }
  }

  async press(key: string): Promise<void> {
    for (const type of ["keyDown", "keyUp"])
      await this.send("Input.dispatchKeyEvent", { type, key, code: key });
  }

  /** PNG of the whole page. */
  async screenshot(): Promise<Buffer> {
    const { data } = await this.send("Page.captureScreenshot", { captureBeyondViewport: true });
    return Buffer.from(data as string, "base64");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.child.on("close", resolve));
    this.child.kill("SIGKILL");
    await closed;
  }

  private send(method: string, params: object = {}): Promise<Record<string, unknown>> {
    const id = this.nextId++;
    const { session: sessionId } = this;
    this.input.write(`${JSON.stringify({ id, method, params, ...(sessionId && { sessionId }) })}\0`);
    return new Promise((resolve, reject) => {
      this.waiting.set(id, ({ error, result = {} }) =>
        error === undefined ? resolve(result) : reject(new Error(`${method}: ${error.message}`)),
      );
    });
  }

  private receive(reply: Reply): void {
    if (reply.id !== undefined) {
      this.waiting.get(reply.id)?.(reply);
      this.waiting.delete(reply.id);
    } else if (reply.method === "Page.loadEventFired") {
      this.loaded();
    } else if (reply.method === "Network.requestWillBeSent") {
      this.requests.push((reply.params as { request: { url: string } }).request.url);
    } else if (
      ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"].includes(reply.method ?? "")
    ) {
      this.complaints.push(JSON.stringify(reply.params));
    }
  }
}
