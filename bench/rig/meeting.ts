/**
 * Two nodes, or more, of one beacon on a small internet, and one of them relaying to another
 * without pause.
 */
import { accountOf, longestGap } from "./account.ts";
import { BEACON_PORT } from "./beacon.ts";
import { join } from "./pair.ts";
import { NodeHost, type RemoteNode } from "./remote.ts";
import type { Internet } from "./topology.ts";

const PADDING_BYTES = 100;
const EVERY_MS = 5;
/** How long a relay may take that is not lost. */
const REACH_MS = 1000;
const STREAM_MS_MAX = 40_000;
/** Undisturbed, before and after what happens. */
const BEFORE_MS = 400;
const AFTER_MS = 600;
/** For what is still under way when the last packet has been sent. */
const LATE_MS = 300;

/**
 * Starts a process on a host, with registered nodes in it.
 * @param beacon the host of their beacon
 */
export async function joinAt(
  internet: Internet,
  name: string,
  { beacon = "beacon", count = 1 } = {},
): Promise<RemoteNode[]> {
  const { namespace, ipv4 } = internet.site(name);
  const at = { address: internet.site(beacon).ipv4, port: BEACON_PORT };
  const host = new NodeHost(namespace);
  const nodes: RemoteNode[] = [];
  while (nodes.length < count) nodes.push(await join({ host, address: ipv4, beacon: at }));
  return nodes;
}

/** Whether a relay gets through now; one of a few will do, and none takes as long as `REACH_MS`. */
export async function reaches(from: RemoteNode, to: RemoteNode): Promise<boolean> {
  const before = await to.call("arrived", from.id, 0, 0);
  await from.call("stream", { to: to.id, paddingBytes: 0, everyMs: EVERY_MS, forMs: 5 * EVERY_MS });
  return (await to.call("arrived", from.id, before + 1, REACH_MS)) > before;
}

/** What became of a stream that something happened to. */
export interface Disturbed {
  readonly sent: number;
  readonly lost: number;
  /** Of these, lost with others that arrived on either side: outside of the longest gap. */
  readonly lostElsewhere: number;
  /** The longest time without an arrival. */
  readonly gapMs: number;
}

/** Relays from one to the other, lets `happen` happen meanwhile, and relays on for a moment. */
export async function disturb(
  from: RemoteNode,
  to: RemoteNode,
  happen: () => Promise<void>,
): Promise<Disturbed> {
  const streamed = from.call("stream", {
    to: to.id,
    paddingBytes: PADDING_BYTES,
    everyMs: EVERY_MS,
    forMs: STREAM_MS_MAX,
  });
  await Bun.sleep(BEFORE_MS);
  await happen();
  await Bun.sleep(AFTER_MS);
  await from.call("endStream");
  const sent = await streamed;
  await Bun.sleep(LATE_MS);
  const arrivals = await to.call("arrivals", from.id);
  const lost = sent - accountOf(arrivals, sent).delivered;
  const gap = longestGap(arrivals);
  const arrivedInTheEnd = arrivals.numbers.at(-1) === sent - 1;
  const lostInGap = gap.after - gap.before - 1;
  return {
    sent,
    lost,
    lostElsewhere: arrivedInTheEnd ? lost - Math.min(lost, lostInGap) : lost,
    gapMs: gap.ms,
  };
}
