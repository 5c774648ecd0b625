/** Pauses of a beacon's main thread, as pause-probe.ts finds them in its process. */
import { join } from "node:path";
import { beaconSources, temporaryFolder } from "./targets.ts";

/** Milliseconds. */
export interface Quantiles {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

export interface Pauses {
  readonly samples: number;
  /** How late a timer of each millisecond was. */
  readonly late: Quantiles;
  /** CPU time that the thread used from one call of the timer to the next. */
  readonly used: Quantiles;
}

export class PauseProbe {
  readonly #socket = join(temporaryFolder(), "pauses");

  /** How a beacon is run that is probed. */
  get program(): string[] {
    const [bun, main] = beaconSources() as [string, string];
    const script = join(import.meta.dir, "pause-probe.ts");
    return ["env", `BENCH_PAUSES=${this.#socket}`, bun, "--preload", script, main];
  }

  async start(): Promise<void> {
    await this.#ask("start");
  }

  /** What was found since the start. */
  async read(): Promise<Pauses> {
    return (await this.#ask("read")) as Pauses;
  }

  async #ask(what: string): Promise<unknown> {
    return (await fetch(`http://probe/${what}`, { unix: this.#socket })).json();
  }
}
