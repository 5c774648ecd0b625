/**
 * Samples of the directory's log and of its server's memory. Ages are measured with this host's
 * monotonic clock, because the server's clock may step.
 */
import * as v from "valibot";
import type { DirectoryServer } from "./directory-server.ts";

const LOG = "{pilot-beacon}:log";

const Reply = v.object({
  length: v.number(),
  "entries-added": v.number(),
  "last-generated-id": v.string(),
});

export interface LogSample {
  /** Monotonic time, ms. */
  readonly atMs: number;
  readonly length: number;
  /** Entries added since the log exists. */
  readonly added: number;
  /** Seconds since the oldest entry was written, at most one sampling interval too few. */
  readonly oldestS: number;
  /** Seconds by which the last id is ahead of the host's clock. */
  readonly idsAheadS: number;
  readonly memoryBytes: number;
}

export class LogWatch {
  readonly samples: LogSample[] = [];
  #running: Promise<void> | undefined;
  #isStopping = false;

  constructor(private readonly server: DirectoryServer) {}

  /** Takes samples until `stop`. */
  start(everyMs: number): void {
    this.#running = (async () => {
      for (; !this.#isStopping; await Bun.sleep(everyMs)) await this.sample();
    })();
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#running;
  }

  async sample(): Promise<LogSample> {
    const reply = v.parse(Reply, await this.server.command("XINFO", "STREAM", LOG));
    const { memoryBytes } = await this.server.use();
    const [atMs, wallMs] = [performance.now(), Date.now()];
    const { length, "entries-added": added, "last-generated-id": last } = reply;
    const wasAdded = this.samples.find((one) => one.added > added - length);
    const sample = {
      ...{ atMs, length, added, memoryBytes },
      oldestS: wasAdded === undefined || length === 0 ? 0 : (atMs - wasAdded.atMs) / 1000,
      idsAheadS: (Number(last.split("-")[0]) - wallMs) / 1000,
    };
    this.samples.push(sample);
    return sample;
  }
}
