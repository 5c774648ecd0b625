/**
 * Tries a beacon from here as two nodes would use it: by UDP, without its API. It stays below a
 * beacon's limits: two new nodes, one punch a second, one relay a millisecond. The two nodes have
 * random ids, and the beacon forgets them by itself.
 */
import { randomBytes, randomInt } from "node:crypto";
import { hostPort } from "../../../ffi/host-port.ts";
import {
  addressIn,
  DISCOVER_REPLY,
  discover,
  PUNCH_COMMAND,
  payloadFrom,
  punchRequest,
  relay,
} from "./messages.ts";
import { ProbeSocket } from "./socket.ts";

export interface SocketAddress {
  /** An IP literal. */
  readonly address: string;
  readonly port: number;
}

export interface ProbeOptions {
  /** Packets of each kind. */
  readonly count: number;
  /** Time from one packet to the next. */
  readonly intervalMs: number;
  /** A relay's payload; at least PAYLOAD_BYTES_MIN. */
  readonly sizeBytes: number;
  /** How long an answer may take. */
  readonly timeoutMs: number;
}

/** Packets that should come back, and how long they took, in milliseconds; null where none came. */
export interface Trips {
  readonly sent: number;
  readonly lost: number;
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
}

/** What each end of a punch was told: an address, or null for nothing. */
export interface Punch {
  readonly ok: boolean;
  readonly requesterWasTold: string | null;
  readonly targetWasTold: string | null;
  readonly attempts: number;
}

export interface Probed {
  /** Where the beacon was tried. */
  readonly beacon: string;
  /** This socket's own address, here and as the beacon sees it; null if it does not answer. */
  readonly here: string;
  readonly seenAs: string | null;
  /** What the kernel said of the way there, such as ECONNREFUSED, or null. */
  readonly error: string | null;
  readonly roundTrips: Trips | null;
  /** Whether two nodes could be made; without them there is neither punch nor relay. */
  readonly registered: boolean | null;
  readonly punch: Punch | null;
  readonly relay: Trips | null;
}

/** A nonce and a number. */
export const PAYLOAD_BYTES_MIN = 12;
const NONCE_BYTES = 8;

/** First id of probe nodes; two of 268 million ids hardly ever meet another node's. */
const ID_MIN = 0xf000_0000;
/** Before nobody is said to be there. */
const ATTEMPTS = 3;
/** A beacon lets an address punch once a second. */
const PUNCH_PAUSE_MS = 1100;
const PUNCH_ATTEMPTS = 2;

/** @throws Error with `code` when there is no way to that address */
export async function probe(target: SocketAddress, options: ProbeOptions): Promise<Probed> {
  const sockets: ProbeSocket[] = [];
  const open = async () => {
    const socket = await ProbeSocket.open(target);
    sockets.push(socket);
    return socket;
  };
  try {
    const first = await open();
    const found = {
      beacon: hostPort(target.address, target.port),
      here: hostPort(first.address.address, first.address.port),
      seenAs: await ask(first, 0, options.timeoutMs),
      roundTrips: null,
      registered: null,
      punch: null,
      relay: null,
    };
    if (found.seenAs === undefined) return { ...found, seenAs: null, error: first.error ?? null };
    const { seenAs } = found;
    const roundTrips = await timeDiscovers(open, options);
    const nodes = await register(open, options.timeoutMs);
    if (nodes === undefined)
      return { ...found, seenAs, error: null, roundTrips, registered: false };
    return {
      ...found,
      seenAs,
      error: null,
      roundTrips,
      registered: true,
      punch: await punch(nodes, options.timeoutMs),
      relay: await timeRelays(nodes, options),
    };
  } finally {
    for (const socket of sockets) socket.close();
  }
}

/** A node of this probe. */
interface Node {
  readonly id: number;
  readonly socket: ProbeSocket;
  /** As the beacon sees it. */
  readonly seenAs: string;
}

/** @returns where the beacon sees the socket, undefined if it says nothing */
async function ask(
  socket: ProbeSocket,
  nodeId: number,
  timeoutMs: number,
): Promise<string | undefined> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const answer = socket.next((bytes) => addressIn(DISCOVER_REPLY, bytes), timeoutMs);
    socket.send(discover(nodeId));
    const seenAs = await answer;
    if (seenAs !== undefined) return seenAs;
  }
  return undefined;
}

/** One at a time. An answer names no question: after a loss, the next uses another port. */
async function timeDiscovers(
  open: () => Promise<ProbeSocket>,
  { count, intervalMs, timeoutMs }: ProbeOptions,
): Promise<Trips> {
  const times = new Float64Array(count).fill(Number.NaN);
  let socket = await open();
  for (let i = 0; i < count; i++) {
    const startMs = performance.now();
    const answer = socket.next((bytes) => addressIn(DISCOVER_REPLY, bytes), timeoutMs);
    socket.send(discover(0));
    if ((await answer) !== undefined) {
      times[i] = performance.now() - startMs;
    } else if (i + 1 < count) {
      socket.close();
      socket = await open();
    }
    if (i + 1 < count) await Bun.sleep(Math.max(0, startMs + intervalMs - performance.now()));
  }
  return trips(times);
}

async function register(
  open: () => Promise<ProbeSocket>,
  timeoutMs: number,
): Promise<readonly [Node, Node] | undefined> {
  const id = randomInt(ID_MIN, 2 ** 32 - 1);
  const nodes: Node[] = [];
  for (const nodeId of [id, id + 1]) {
    const socket = await open();
    const seenAs = await ask(socket, nodeId, timeoutMs);
    if (seenAs === undefined) return undefined;
    nodes.push({ id: nodeId, socket, seenAs });
  }
  return [nodes[0]!, nodes[1]!];
}

async function punch(
  [requester, target]: readonly [Node, Node],
  timeoutMs: number,
): Promise<Punch> {
  let told: (string | undefined)[] = [];
  let attempts = 0;
  for (;;) {
    const startMs = performance.now();
    const commands = [requester, target].map(({ socket }) =>
      socket.next((bytes) => addressIn(PUNCH_COMMAND, bytes), timeoutMs),
    );
    requester.socket.send(punchRequest(requester.id, target.id));
    told = await Promise.all(commands);
    if (++attempts === PUNCH_ATTEMPTS || told.some((address) => address !== undefined)) break;
    await Bun.sleep(Math.max(0, startMs + PUNCH_PAUSE_MS - performance.now()));
  }
  const [requesterWasTold = null, targetWasTold = null] = told;
  const ok = requesterWasTold === target.seenAs && targetWasTold === requester.seenAs;
  return { ok, requesterWasTold, targetWasTold, attempts };
}

/** Sends relays between the two nodes. A relay that comes back changed counts as lost. */
async function timeRelays(
  [sender, receiver]: readonly [Node, Node],
  { count, intervalMs, sizeBytes, timeoutMs }: ProbeOptions,
): Promise<Trips> {
  const times = new Float64Array(count).fill(Number.NaN);
  const sentMs = new Float64Array(count);
  const payload = randomBytes(sizeBytes);
  let arrived = 0;
  const { promise: all, resolve: allArrived } = Promise.withResolvers<void>();
  receiver.socket.receive((bytes) => {
    const nowMs = performance.now();
    const got = payloadFrom(sender.id, bytes);
    if (
      got?.length !== sizeBytes ||
      !got.subarray(0, NONCE_BYTES).equals(payload.subarray(0, NONCE_BYTES))
    )
      return;
    const i = got.readUInt32BE(NONCE_BYTES);
    const isWhole = got.subarray(PAYLOAD_BYTES_MIN).equals(payload.subarray(PAYLOAD_BYTES_MIN));
    if (!isWhole || i >= count || !Number.isNaN(times[i]!)) return;
    times[i] = nowMs - sentMs[i]!;
    if (++arrived === count) allArrived();
  });
  const startMs = performance.now();
  for (let i = 0; i < count; i++) {
    const earlyMs = startMs + i * intervalMs - performance.now();
    if (earlyMs > 0) await Bun.sleep(earlyMs);
    payload.writeUInt32BE(i, NONCE_BYTES);
    sentMs[i] = performance.now();
    sender.socket.send(relay(sender.id, receiver.id, payload));
  }
  await Promise.race([all, Bun.sleep(timeoutMs)]);
  return trips(times);
}

/** @param times in milliseconds, NaN for what did not come */
export function trips(times: Float64Array): Trips {
  const came = times.filter((ms) => !Number.isNaN(ms)).sort();
  const at = (share: number) =>
    came.length === 0 ? null : Number(came[Math.ceil(share * came.length) - 1]!.toFixed(3));
  return { sent: times.length, lost: times.length - came.length, p50Ms: at(0.5), p99Ms: at(0.99) };
}
