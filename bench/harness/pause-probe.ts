/**
 * How long a beacon's main thread does not come back to its timers; preloaded into its process (see
 * pauses.ts), which knows nothing of it.
 *
 *   BENCH_PAUSES=<path> bun --preload pause-probe.ts src/main.ts …
 *
 * A timer is due every millisecond. Each time it is called, two things are noted: how late it is,
 * which is what others had to wait for the thread, and be it that the host gave its core to
 * somebody else; and how much CPU time the thread used since the last call, which is what the
 * beacon itself did meanwhile. The socket at the path takes two requests: /start, and /read, which
 * ends it.
 */
import { isMainThread } from "node:worker_threads";
import { TIMESPEC_BYTES } from "../../ffi/abi.ts";
import { libc } from "../../ffi/libc.ts";
import type { Pauses, Quantiles } from "./pauses.ts";

const CLOCK_THREAD_CPUTIME_ID = 3; // <linux/time.h>
const PERIOD_MS = 1;
/** Ten minutes' worth; what is more is not noted. */
const SAMPLES_MAX = 600_000;

const timespec = new BigInt64Array(new ArrayBuffer(TIMESPEC_BYTES));
function threadMs(): number {
  libc.clock_gettime(CLOCK_THREAD_CPUTIME_ID, timespec);
  return Number(timespec[0]!) * 1e3 + Number(timespec[1]!) / 1e6;
}

class Probe {
  readonly #lateMs = new Float64Array(SAMPLES_MAX);
  readonly #usedMs = new Float64Array(SAMPLES_MAX);
  #samples = 0;
  #calledMs = 0;
  #threadMs = 0;
  #timer: Timer | undefined;

  start(): void {
    clearInterval(this.#timer);
    this.#samples = 0;
    this.#calledMs = performance.now();
    this.#threadMs = threadMs();
    this.#timer = setInterval(() => this.#sample(), PERIOD_MS);
    this.#timer.unref();
  }

  #sample(): void {
    if (this.#samples === SAMPLES_MAX) return;
    const nowMs = performance.now();
    const usedMs = threadMs();
    this.#lateMs[this.#samples] = nowMs - this.#calledMs - PERIOD_MS;
    this.#usedMs[this.#samples++] = usedMs - this.#threadMs;
    this.#calledMs = nowMs;
    this.#threadMs = usedMs;
  }

  read(): Pauses {
    clearInterval(this.#timer);
    const [late, used] = [this.#lateMs, this.#usedMs].map((all) =>
      quantiles(all.slice(0, this.#samples)),
    );
    return { samples: this.#samples, late: late!, used: used! };
  }
}

function quantiles(values: Float64Array): Quantiles {
  values.sort();
  const at = (q: number) => values[Math.min(values.length - 1, Math.floor(q * values.length))] ?? 0;
  return { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1) };
}

if (isMainThread) {
  const probe = new Probe();
  const server = Bun.serve({
    unix: process.env["BENCH_PAUSES"]!,
    routes: {
      "/start": () => {
        probe.start();
        return Response.json({});
      },
      "/read": () => Response.json(probe.read()),
    },
  });
  server.unref();
}
