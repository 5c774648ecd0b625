/**
 * Signatures of gossip, and replay protection. A signed Sync has a trailer behind its node ids,
 * which beacons without a key ignore, big-endian:
 *
 *   [instance u64][time u64][HMAC-SHA-256, 32 bytes]
 *
 * The HMAC covers all bytes before it. The time is in Unix milliseconds and increases with each
 * message of an instance. The instance is the _start_, 48 random bits for each start of a beacon,
 * and 16 bits that count the steps back of its clock. After such a step, times of the previous
 * instance would be rejected until the clock has caught up. So the start continues with a later
 * instance, whose times may be lower. It ends the previous instances, whose messages could be
 * replayed.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { SYNC_BYTES, SYNC_COUNT_AT, SYNC_TRAILER_BYTES } from "../../protocol.ts";
import { PEERS_MAX } from "../../shared/memory.ts";

const TIME_AT = 8;
const HMAC_AT = 16;
const HMAC_BYTES = 32;
if (HMAC_AT + HMAC_BYTES !== SYNC_TRAILER_BYTES)
  throw new Error("the parts of the trailer do not add up to SYNC_TRAILER_BYTES");

/** Maximum difference between a peer's clock and this host's; hosts without NTP need as much. */
export const CLOCK_DIFFERENCE_MS_MAX = 60_000;

/** Limit of remembered starts: eight of each peer. */
export const INSTANCES_MAX = 8 * PEERS_MAX;

const STEP_BITS = 16n;
const STEPS_MAX = (1n << STEP_BITS) - 1n;

/** Returns an instance for a start of a beacon. */
export const newInstance = (): bigint => BigInt(`0x${randomBytes(6).toString("hex")}`) << STEP_BITS;

/** Returns the instance after a step back of the clock. */
export const nextInstance = (instance: bigint): bigint =>
  (instance & STEPS_MAX) === STEPS_MAX ? newInstance() : instance + 1n;

const startOf = (instance: bigint): bigint => instance >> STEP_BITS;

/** Why gossip is rejected. A duplicate is the last message by another path; no warning. */
export const SIGNATURE_REFUSALS = [
  "unsigned",
  "forged",
  "clock",
  "replayed",
  "duplicate",
  "too_many_instances",
] as const;
export type SignatureRefusal = (typeof SIGNATURE_REFUSALS)[number];

/** The trailer of a message with a correct HMAC. */
export interface Signature {
  readonly instance: bigint;
  readonly timeMs: number;
}

/**
 * Signs a Sync.
 * @param message with a correct count, and SYNC_TRAILER_BYTES of room behind its node ids
 * @returns length of the message with the trailer
 */
export function sign(message: Uint8Array, key: string, { instance, timeMs }: Signature): number {
  const view = viewOf(message);
  const at = trailerAt(view);
  view.setBigUint64(at, instance);
  view.setBigUint64(at + TIME_AT, BigInt(timeMs));
  message.set(hmac(message.subarray(0, at + HMAC_AT), key), at + HMAC_AT);
  return at + SYNC_TRAILER_BYTES;
}

/**
 * Reads and checks the signature of a Sync with a correct count. Ignores bytes after the trailer.
 * @param keys accepted keys
 */
export function readSignature(
  message: Uint8Array,
  keys: readonly string[],
): Signature | Extract<SignatureRefusal, "unsigned" | "forged"> {
  const view = viewOf(message);
  const at = trailerAt(view);
  if (message.length < at + SYNC_TRAILER_BYTES) return "unsigned";
  const signed = message.subarray(0, at + HMAC_AT);
  const written = message.subarray(at + HMAC_AT, at + SYNC_TRAILER_BYTES);
  if (!keys.some((key) => timingSafeEqual(hmac(signed, key), written))) return "forged";
  return { instance: view.getBigUint64(at), timeMs: Number(view.getBigUint64(at + TIME_AT)) };
}

const viewOf = ({ buffer, byteOffset, length }: Uint8Array) =>
  new DataView(buffer, byteOffset, length);
const trailerAt = (message: DataView) => SYNC_BYTES + 4 * message.getUint16(SYNC_COUNT_AT);
const hmac = (bytes: Uint8Array, key: string) => createHmac("sha256", key).update(bytes).digest();

/** Arrival of a message, on two clocks. */
export interface Arrival {
  /** Unix milliseconds. */
  readonly wallMs: number;
  /** Milliseconds on a monotonic clock. */
  readonly steadyMs: number;
}

export interface Seen {
  readonly source: string;
  readonly timeMs: number;
  readonly steadyMs: number;
}

/** State of one start of a beacon. */
interface Start extends Seen {
  /** Its latest instance. */
  readonly instance: bigint;
  /** The newest time of all its instances: messages up to that time can be replayed. */
  readonly newestMs: number;
}

/** Replay protection: accepts no message twice, or from another address. */
export class Instances {
  readonly #starts = new Map<bigint, Start>();

  /**
   * @param own an instance of this beacon: its messages arrive here only if replayed
   * @param isNamed whether an address is a listed peer's. A listed peer keeps its start even if an
   * unlisted host's replay of a message arrives before the message
   */
  constructor(
    private readonly own: bigint,
    private readonly isNamed: (source: string) => boolean,
  ) {}

  get size(): number {
    return this.#starts.size;
  }

  seen(): readonly (readonly [bigint, Readonly<Seen>])[] {
    return Array.from(this.#starts.values(), (start) => [start.instance, start]);
  }

  /** Remembers an instance that another process of this beacon accepted. */
  adopt(instance: bigint, seen: Seen): void {
    if (this.size < INSTANCES_MAX) this.#remember(instance, seen);
  }

  /**
   * Accepts a message, or returns why not.
   * @param liveMs time for which an accepted start keeps its source address
   */
  accept(
    { instance, timeMs }: Signature,
    source: string,
    now: Arrival,
    liveMs: number,
  ): Exclude<SignatureRefusal, "unsigned" | "forged"> | undefined {
    if (Math.abs(timeMs - now.wallMs) > CLOCK_DIFFERENCE_MS_MAX) {
      if (timeMs > now.wallMs) this.#useUp(instance, timeMs, source, now.steadyMs - liveMs - 1);
      return "clock";
    }
    if (startOf(instance) === startOf(this.own)) return "replayed";
    const start = this.#starts.get(startOf(instance));
    if (start === undefined) {
      if (this.size >= INSTANCES_MAX) this.#forget(now, liveMs);
      if (this.size >= INSTANCES_MAX) return "too_many_instances";
    } else {
      const refusal = this.#refusalOf(start, { instance, timeMs }, source, now.steadyMs - liveMs);
      if (refusal !== undefined) return refusal;
    }
    this.#remember(instance, { source, timeMs, steadyMs: now.steadyMs });
    return undefined;
  }

  /** @param liveSinceMs a start that was accepted since then keeps its source address */
  #refusalOf(
    start: Start,
    { instance, timeMs }: Signature,
    source: string,
    liveSinceMs: number,
  ): "duplicate" | "replayed" | undefined {
    if (instance < start.instance) return "replayed";
    const isSame = instance === start.instance;
    if (isSame && timeMs < start.timeMs) return "replayed";
    if (this.isNamed(source) && !this.isNamed(start.source)) return undefined;
    if (isSame && timeMs === start.timeMs) return "duplicate";
    return source !== start.source && start.steadyMs >= liveSinceMs ? "replayed" : undefined;
  }

  /**
   * Remembers a rejected message from the future, so that it is not accepted later.
   * @param steadyMs long ago: nothing was accepted, so the start may have any source address
   */
  #useUp(instance: bigint, timeMs: number, source: string, steadyMs: number): void {
    const start = this.#starts.get(startOf(instance));
    if (start === undefined) {
      // A beacon with a clock days ahead that restarts again and again must not displace others.
      if (this.size < INSTANCES_MAX / 2) this.#remember(instance, { source, timeMs, steadyMs });
    } else if (
      instance > start.instance ||
      (instance === start.instance && timeMs > start.timeMs)
    ) {
      this.#remember(instance, { source: start.source, timeMs, steadyMs: start.steadyMs });
    }
  }

  #remember(instance: bigint, { source, timeMs, steadyMs }: Seen): void {
    const before = this.#starts.get(startOf(instance))?.newestMs ?? timeMs;
    const newestMs = Math.max(before, timeMs);
    this.#starts.set(startOf(instance), { instance, source, timeMs, steadyMs, newestMs });
  }

  /** Forgets starts that are not live and whose messages are too old for a replay. */
  #forget({ wallMs, steadyMs }: Arrival, liveMs: number): void {
    for (const [key, start] of this.#starts) {
      const isLive = steadyMs - start.steadyMs <= liveMs;
      if (!isLive && wallMs - start.newestMs > CLOCK_DIFFERENCE_MS_MAX) this.#starts.delete(key);
    }
  }
}
