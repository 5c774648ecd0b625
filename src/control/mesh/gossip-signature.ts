/**
 * Proof that gossip is of the mesh: behind its node ids, where beacons without a key take no notice
 * of it, a signed Sync carries
 *
 *   [instance u64][time u64][HMAC-SHA-256, 32 bytes]
 *
 * big-endian. The time is in Unix milliseconds and later in each message of an instance than in the
 * one before, and the HMAC is over all bytes before it. The instance is the _start_, 48 bits that
 * are random for each start of a beacon, and 16 bits that count how often its clock stepped back
 * since. After such a step the times of the instance before would be rejected until the clock has
 * caught up; a later instance of the same start begins anew, and ends the ones before it, whose
 * messages could be replayed by then.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { SYNC_BYTES, SYNC_COUNT_AT, SYNC_TRAILER_BYTES } from "../../protocol.ts";
import { PEERS_MAX } from "../../shared/memory.ts";

const TIME_AT = 8;
const HMAC_AT = 16;
const HMAC_BYTES = 32;
if (HMAC_AT + HMAC_BYTES !== SYNC_TRAILER_BYTES)
  throw new Error("the trailer has other parts than it has room");

/**
 * How far a peer's clock may be from this host's; less than that, and hosts without NTP would lose
 * each other.
 */
export const CLOCK_DIFFERENCE_MS_MAX = 60_000;

/**
 * Instances that are remembered. Only who has the key makes one, each start of a beacon; so this is
 * eight starts of each peer within the time for which they have to be remembered.
 */
export const INSTANCES_MAX = 8 * PEERS_MAX;

const STEP_BITS = 16n;
const STEPS_MAX = (1n << STEP_BITS) - 1n;

/** An instance for a beacon that starts. */
export const newInstance = (): bigint => BigInt(`0x${randomBytes(6).toString("hex")}`) << STEP_BITS;

/** The instance after a step of the clock. */
export const nextInstance = (instance: bigint): bigint =>
  (instance & STEPS_MAX) === STEPS_MAX ? newInstance() : instance + 1n;

const startOf = (instance: bigint): bigint => instance >> STEP_BITS;

/**
 * Why gossip is not believed. A duplicate is the very message that was accepted last, on another
 * way, and nothing to complain of.
 */
export const SIGNATURE_REFUSALS = [
  "unsigned",
  "forged",
  "clock",
  "replayed",
  "duplicate",
  "too_many_instances",
] as const;
export type SignatureRefusal = (typeof SIGNATURE_REFUSALS)[number];

/** What the trailer of a message says whose HMAC is right. */
export interface Signature {
  readonly instance: bigint;
  readonly timeMs: number;
}

/**
 * Signs a Sync.
 * @param message with its count right, and SYNC_TRAILER_BYTES of room behind its node ids
 * @returns bytes of the message with the trailer
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
 * Reads and checks the signature of a Sync whose count is right; what lies behind the trailer is
 * ignored.
 * @param keys any of which may have signed it
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

/** When a message came, on two clocks. */
export interface Arrival {
  /** Unix milliseconds. */
  readonly wallMs: number;
  /** Milliseconds on a clock that nobody sets. */
  readonly steadyMs: number;
}

export interface Seen {
  readonly source: string;
  readonly timeMs: number;
  readonly steadyMs: number;
}

/** State kept of one start of a beacon. */
interface Start extends Seen {
  /** Its latest instance. */
  readonly instance: bigint;
  /** The newest time of any of its instances: until then they could be replayed. */
  readonly newestMs: number;
}

/** Replay protection for signed gossip: no message counts twice, or from another address. */
export class Instances {
  readonly #starts = new Map<bigint, Start>();

  /**
   * @param own an instance of this beacon, whose messages come from elsewhere only if somebody
   * replays them
   * @param isNamed whether an address is a peer's that was configured or registered: where a
   * stranger replays faster than the message
   * itself comes, its own address counts
   */
  constructor(
    private readonly own: bigint,
    private readonly isNamed: (source: string) => boolean,
  ) {}

  get size(): number {
    return this.#starts.size;
  }

  /** What is remembered. */
  seen(): readonly (readonly [bigint, Readonly<Seen>])[] {
    return Array.from(this.#starts.values(), (start) => [start.instance, start]);
  }

  /** Remembers what another process of this beacon heard. */
  adopt(instance: bigint, seen: Seen): void {
    if (this.size < INSTANCES_MAX) this.#remember(instance, seen);
  }

  /**
   * Accepts a message, or says why not.
   * @param source the address that it came from
   * @param liveMs an instance that was accepted within this time is where it was, and nowhere else
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

  /** @param liveSinceMs a start that was accepted since then is where it was */
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
   * A message from the future is rejected now, and must not be accepted when its time has come.
   * @param steadyMs long ago: nothing was accepted, so the sender may be at any address
   */
  #useUp(instance: bigint, timeMs: number, source: string, steadyMs: number): void {
    const start = this.#starts.get(startOf(instance));
    if (start === undefined) {
      // A beacon that restarts all the time with a clock that is days ahead must not keep the
      // others out.
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

  /** Forgets those that are not live and whose messages are too old to be replayed. */
  #forget({ wallMs, steadyMs }: Arrival, liveMs: number): void {
    for (const [key, start] of this.#starts) {
      const isLive = steadyMs - start.steadyMs <= liveMs;
      if (!isLive && wallMs - start.newestMs > CLOCK_DIFFERENCE_MS_MAX) this.#starts.delete(key);
    }
  }
}
