/** An attack of packets at a steady rate. */
import type { Assault, Effort } from "./attack.ts";
import type { Sender } from "./datagrams.ts";

/** How fine a timer is: what is due, is sent at the next tick. */
const TICK_MS = 1;
/**
 * What could not be sent for so long is not made up for: an attacker that stood still does not come
 * back twice as hard.
 */
const ARREARS_MS_MAX = 50;

export class Barrage implements Assault {
  #count = 0;
  #isStopping = false;
  readonly #ended: Promise<void>;

  constructor(
    private readonly sender: Sender,
    private readonly packetsPerS: number,
  ) {
    this.#ended = this.#run();
  }

  async stop(): Promise<Effort> {
    this.#isStopping = true;
    await this.#ended;
    const effort = {
      of: "packets",
      count: this.#count,
      bytes: this.sender.bytes,
      heard: this.sender.hear(),
    };
    this.sender.close();
    return effort;
  }

  async #run(): Promise<void> {
    let due = 0;
    for (let last = performance.now(); !this.#isStopping; await Bun.sleep(TICK_MS)) {
      const now = performance.now();
      due += (Math.min(now - last, ARREARS_MS_MAX) * this.packetsPerS) / 1000;
      last = now;
      while (due >= 1) {
        const taken = this.sender.send(Math.floor(due));
        if (taken === 0) break; // its buffer is full, for the moment
        this.#count += taken;
        due -= taken;
      }
      due = Math.min(due, (ARREARS_MS_MAX * this.packetsPerS) / 1000);
      this.sender.hear();
    }
  }
}

/** Several attacks that are one. */
export function together(...assaults: readonly Assault[]): Assault {
  return {
    async stop() {
      const efforts = await Promise.all(assaults.map((assault) => assault.stop()));
      return efforts.reduce((all, one) => {
        const heard = { ...all.heard };
        for (const [type, count] of Object.entries(one.heard)) {
          heard[Number(type)] = (heard[Number(type)] ?? 0) + count;
        }
        return { of: one.of, count: all.count + one.count, bytes: all.bytes + one.bytes, heard };
      });
    },
  };
}
