// The real server, as a process.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** `taskyard serve`. Whoever starts one must end it. */
export class Server {
  readonly address: string;
  readonly #process: ChildProcess;
  readonly #ended: Promise<unknown>;

  private constructor(process: ChildProcess, ended: Promise<unknown>, address: string) {
    this.#process = process;
    this.#ended = ended;
    this.address = address;
  }

  static async start(
    data: string,
    settings: string[] = [],
    listen = "127.0.0.1:0",
  ): Promise<Server> {
    const workers = settings.includes("--workers") ? [] : ["--workers", "2"];
    const args = ["serve", "--listen", listen, "--data-dir", data, ...workers, ...settings];
    const inherited = Object.entries(process.env).filter(
      ([name]) => !name.startsWith("TASKYARD"),
    );
    const env = { ...Object.fromEntries(inherited), NO_COLOR: "1" };
    const program = process.env.TASKYARD || "taskyard";
    const child = spawn(program, args, { env, stdio: ["ignore", "ignore", "pipe"] });
    const ended = once(child, "close");
    ended.catch(() => {});
    const log = createInterface({ input: child.stderr });
    return await new Promise((resolve, reject) => {
      let told = "";
      child.once("error", reject);
      log.on("line", (line) => {
        told += `${line}\n`;
        const address = /listening on (\S+)/.exec(line)?.[1];
        if (address !== undefined) resolve(new Server(child, ended, address));
      });
      child.once("close", () => reject(new Error(`it ended before it listened:\n${told}`)));
    });
  }

  signal(name: NodeJS.Signals): void {
    this.#process.kill(name);
  }

  /** Ends it by this signal, and waits for its end. */
  async end(name: NodeJS.Signals = "SIGKILL"): Promise<void> {
    this.signal(name);
    // A process that is stopped does nothing else.
    if (name === "SIGKILL") this.signal("SIGCONT");
    await this.wait();
  }

  /** Waits for its end, which something else brings about. */
  async wait(): Promise<void> {
    await this.#ended;
  }
}
