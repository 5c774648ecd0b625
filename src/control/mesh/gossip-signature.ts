/**
 * Proof that gossip is of the mesh: behind its node ids, where beacons without a key take no notice of it, a signed Sync carries
 *
 *   [instance u64][time u64][HMAC-SHA-256, 32 bytes]
 *
 * big-endian. The instance is random for each start of a beacon, the time in Unix milliseconds and later in each message of an instance
 * than in the one before, and the HMAC is over all bytes before it.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { SYNC_BYTES, SYNC_COUNT_AT, SYNC_TRAILER_BYTES } from "../../protocol.ts";
import { PEERS_MAX } from "../../shared/memory.ts";

const TIME_AT = 8;
const HMAC_AT = 16;
const HMAC_BYTES = 32;
if (HMAC_AT + HMAC_BYTES !== SYNC_TRAILER_BYTES)
  throw new Error("the trailer has other parts than it has room");

/** How far a peer's clock may be from this host's; less than that, and hosts without NTP would lose each other. */
export const CLOCK_DIFFERENCE_MS_MAX = 60_000;

/**
 * Instances that are remembered. Only who has the key makes one, each start of a beacon; so this is eight starts of each peer within the
 * time for which they have to be remembered.
 */
export const INSTANCES_MAX = 8 * PEERS_MAX;

/** Why gossip is not believed. A duplicate is the very message that was accepted last, on another way, and nothing to complain of. */
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
 * Reads and checks the signature of a Sync whose count is right; what lies behind the trailer is ignored.
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

const viewOf = ({ buffer, byteOffset, length }: Uint8Array) => new DataView(buffer, byteOffset, length);
const trailerAt = (message: DataView) => SYNC_BYTES + 4 * message.getUint16(SYNC_COUNT_AT);
const hmac = (bytes: Uint8Array, key: string) => createHmac("sha256", key).update(bytes).digest();

/** When a message came, on two clocks. */
export interface Arrival {
  /** Unix milliseconds. */
  readonly wallMs: number;
  /** Milliseconds on a clock that nobody sets. */
  readonly steadyMs: number;
}

export interface Heard {
  source: string;
  timeMs: number;
  steadyMs: number;
}

/** What the signed gossip that was accepted has shown of its senders; so no message counts twice, or from another address. */
export class Instances {
  readonly #heard = new Map<bigint, Heard>();

  /**
   * @param own this beacon's instance, whose messages come from elsewhere only if somebody replays them
   * @param isNamed whether an address is a peer's that was configured or registered: where a stranger replays faster than the message
   * itself comes, its own address counts
   */
  constructor(
    private readonly own: bigint,
    private readonly isNamed: (source: string) => boolean,
  ) {}

  get size(): number {
    return this.#heard.size;
  }

  /** What is remembered. */
  heard(): readonly (readonly [bigint, Readonly<Heard>])[] {
    return [...this.#heard];
  }

  /** Remembers what another process of this beacon heard. */
  adopt(instance: bigint, heard: Heard): void {
    if (this.#heard.size < INSTANCES_MAX) this.#heard.set(instance, heard);
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
    if (Math.abs(timeMs - now.wallMs) > CLOCK_DIFFERENCE_MS_MAX) return "clock";
    if (instance === this.own) return "replayed";
    const heard = this.#heard.get(instance);
    if (heard === undefined) {
      if (this.#heard.size >= INSTANCES_MAX) this.#forget(now, liveMs);
      if (this.#heard.size >= INSTANCES_MAX) return "too_many_instances";
    } else if (this.isNamed(heard.source) || !this.isNamed(source)) {
      if (timeMs === heard.timeMs) return "duplicate";
      if (timeMs < heard.timeMs) return "replayed";
      if (source !== heard.source && now.steadyMs - heard.steadyMs <= liveMs) return "replayed";
    } else if (timeMs < heard.timeMs) return "replayed";
    this.#heard.set(instance, { source, timeMs, steadyMs: now.steadyMs });
    return undefined;
  }

  /** Forgets those that are not live and whose messages are too old to be replayed. */
  #forget({ wallMs, steadyMs }: Arrival, liveMs: number): void {
    for (const [instance, heard] of this.#heard) {
      const isLive = steadyMs - heard.steadyMs <= liveMs;
      if (!isLive && wallMs - heard.timeMs > CLOCK_DIFFERENCE_MS_MAX) this.#heard.delete(instance);
    }
  }
}
