/**
 * Honest traffic: pairs of nodes that relay at a modest, steady pace, and an exact account of it.
 */

import { quantile } from "../../harness/statistics.ts";
import { accountOf, since } from "../account.ts";
import type { RemoteNode } from "../remote.ts";

const PACKETS_PER_S = 200;
const PADDING_BYTES = 100;
/** When nothing more has arrived for so long, nothing is under way any more. */
const QUIET_MS = 100;
const QUIET_WAITS_MAX = 20;

/** How a pair talks. */
export type Kind = "UDP" | "mesh" | "WebSocket";

export interface Pair {
  readonly kind: Kind;
  readonly from: RemoteNode;
  readonly to: RemoteNode;
}

/** What became of the packets of all pairs of a kind. */
export interface Service {
  readonly kind: Kind;
  readonly sent: number;
  readonly delivered: number;
  /** One way, over all pairs; NaN if nothing arrived. */
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export class HonestTraffic {
  /** Number of the next packet, the same for all pairs. */
  #next = 0;

  constructor(
    private readonly pairs: readonly Pair[],
    /** How often nodes register again, as daemons do. */
    private readonly refreshEveryMs: number,
  ) {}

  get nodes(): RemoteNode[] {
    return this.pairs.flatMap(({ from, to }) => [from, to]);
  }

  /** Relays for so long, and waits for what is under way. @returns what became of it, by kind */
  async flow(forMs: number): Promise<Service[]> {
    const first = this.#next;
    const everyMs = 1000 / PACKETS_PER_S;
    const stream = { paddingBytes: PADDING_BYTES, everyMs, forMs, from: first };
    const refreshing = this.nodes.map((node) =>
      node.call("refreshFor", forMs, this.refreshEveryMs),
    );
    const sent = await Promise.all(
      this.pairs.map(({ from, to }) => from.call("stream", { ...stream, to: to.id })),
    );
    await Promise.all(refreshing);
    this.#next = first + Math.max(...sent);
    await this.#untilQuiet();
    const arrivals = await Promise.all(
      this.pairs.map(async ({ from, to }) => since(await to.call("arrivals", from.id), first)),
    );
    const kinds = [...new Set(this.pairs.map(({ kind }) => kind))];
    return kinds.map((kind) => {
      const ours = this.pairs.flatMap((pair, i) => (pair.kind === kind ? [i] : []));
      const delaysMs = ours.flatMap((i) => arrivals[i]!.delaysUs.map((us) => us / 1000));
      const sum = (count: (i: number) => number) => ours.reduce((all, i) => all + count(i), 0);
      return {
        kind,
        sent: sum((i) => sent[i]!),
        delivered: sum((i) => accountOf(arrivals[i]!, sent[i]!).delivered),
        p50Ms: delaysMs.length === 0 ? Number.NaN : quantile(delaysMs, 0.5),
        p99Ms: delaysMs.length === 0 ? Number.NaN : quantile(delaysMs, 0.99),
      };
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.call("close")));
  }

  async #untilQuiet(): Promise<void> {
    const arrived = async () =>
      Promise.all(this.pairs.map(({ from, to }) => to.call("arrived", from.id, 0, 0)));
    let before = await arrived();
    for (let wait = 0; wait < QUIET_WAITS_MAX; wait++) {
      await Bun.sleep(QUIET_MS);
      const now = await arrived();
      if (Bun.deepEquals(now, before)) return;
      before = now;
    }
  }
}
