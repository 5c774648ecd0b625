/**
 * Punch requests that need their target's leave. A node that wants to be reached signs a grant for
 * another one, hands it over by whatever way they have, and the other one sends it with its
 * PunchRequest (see src/protocol.ts). A grant names both, so it is of no use to others but in the
 * requester's name; it can be used until it expires.
 *
 * The target's key comes from where nodes' keys are looked up, or, if that does not know the node,
 * from its own Discover. Whatever is wrong, nothing is sent: who asks cannot tell a node that is
 * not known from one that gave no leave.
 *
 * Workers hand over what looks like a grant and has a target that is here, so many a second.
 * Signatures are verified off this thread: who sends forged ones uses up that number, and no more
 * of the host.
 */
import type { Logger } from "pino";
import { ENDPOINT_WORDS } from "../../../ffi/endpoint.ts";
import {
  FIRST_ID_AT,
  GRANT_EXPIRY_AT,
  GRANT_SIGNATURE_AT,
  punchGrantText,
  SECOND_ID_AT,
} from "../../protocol.ts";
import { type GrantOutcome, grantColumn } from "../../shared/counters.ts";
import { GRANT_RATE, RateLimitOwner } from "../../shared/limits.ts";
import type { Mail } from "../../shared/mailbox.ts";
import { GRANTS, type SharedMemory } from "../../shared/memory.ts";
import type { NodeTableOwner } from "../../shared/nodes-owner.ts";
import { importKey } from "../keys/ed25519.ts";
import { type KeySource, KeySourceError } from "../keys/keys.ts";
import type { Guard } from "../kit/guard.ts";
import { ThrottledLog } from "../kit/throttled-log.ts";
import type { MailTaker } from "../workers/mail-reader.ts";

/** A grant may be good for so long from now: who loses one loses it for a day at most. */
export const GRANT_S_MAX = 86_400;

/**
 * Grants verified a second, good or bad. One costs 130 to 170 µs of CPU time, from the worker's
 * mailbox on, 25 to 50 of them on this thread (2 cores, Bun 1.4.5, 2026-11), so all of them a sixth
 * of a core; what a flood has beyond them costs what any dropped packet does.
 */
export const VERIFIED_PER_S = 1000;
/** And at once after a pause: some 20 ms of a core. */
export const VERIFIED_BURST = 250;
/** Grants that wait for their target's key at once; a registry may take some seconds. */
const WAITING_MAX = 1024;
/** Requests taken from a worker's mailbox before others have their turn. */
const MAIL_TURN_MAX = 64;

export interface PunchGrantsParts {
  readonly memory: SharedMemory;
  /** The main thread's. */
  readonly nodes: NodeTableOwner;
  /** Tells an endpoint and a node of each other. */
  readonly introductions: {
    introduce(requester: Int32Array, requesterId: number, targetId: number): void;
  };
  /** Where keys are looked up first, if anywhere. */
  readonly keys: () => KeySource | undefined;
  readonly log: Logger;
  readonly guard: Pick<Guard, "report">;
  /** The time of day, ms since 1970, and a clock that never goes backwards. */
  readonly wallMs?: () => number;
  readonly nowMs?: () => number;
}

/** A PunchRequest, out of the mailbox. */
interface Request {
  /** Where it came from. */
  readonly requester: Int32Array;
  readonly requesterId: number;
  readonly targetId: number;
  /** What must be signed, and the 64 bytes of the signature. */
  readonly text: string;
  readonly signature: Uint8Array<ArrayBuffer>;
}

export class PunchGrants {
  readonly mail: MailTaker = {
    kind: GRANTS,
    turnMax: MAIL_TURN_MAX,
    receive: (mail) => this.#receive(mail),
  };
  readonly #view: DataView;
  readonly #wallMs: () => number;
  readonly #nowMs: () => number;
  #waiting = 0;
  readonly #complaints: ThrottledLog;
  #stopped = false;

  constructor(private readonly parts: PunchGrantsParts) {
    new RateLimitOwner(parts.memory, GRANT_RATE).set(VERIFIED_PER_S, VERIFIED_BURST);
    this.#view = new DataView(parts.memory.buffer);
    this.#wallMs = parts.wallMs ?? Date.now;
    this.#nowMs = parts.nowMs ?? (() => performance.now());
    this.#complaints = new ThrottledLog(parts.log, this.#nowMs);
  }

  /** From now on nothing is sent. */
  stop(): void {
    this.#stopped = true;
  }

  #receive({ at, labelAt }: Mail): void {
    const { memory } = this.parts;
    const view = this.#view;
    // what a number does not hold exactly is too long by far
    const expiryS = Number(view.getBigUint64(at + GRANT_EXPIRY_AT));
    const refusal = this.#refusal(expiryS);
    if (refusal !== undefined) {
      this.#count(refusal);
      return;
    }
    const requesterId = view.getUint32(at + FIRST_ID_AT);
    const targetId = view.getUint32(at + SECOND_ID_AT);
    void this.#serve({
      requester: memory.words.slice(labelAt, labelAt + ENDPOINT_WORDS),
      requesterId,
      targetId,
      text: punchGrantText(requesterId, targetId, expiryS),
      signature: memory.bytes.slice(at + GRANT_SIGNATURE_AT, at + GRANT_SIGNATURE_AT + 64),
    });
  }

  /** Why a grant is not even verified. */
  #refusal(expiryS: number): GrantOutcome | undefined {
    const leftS = expiryS - this.#wallMs() / 1000;
    if (leftS <= 0) return "expired";
    if (leftS > GRANT_S_MAX) return "too_long";
    return this.#waiting < WAITING_MAX ? undefined : "overload";
  }

  async #serve(request: Request): Promise<void> {
    this.#waiting++;
    const outcome = await this.#judge(request);
    this.#waiting--;
    if (this.#stopped) return;
    this.#count(outcome);
    if (outcome !== "ok") return;
    const { requester, requesterId, targetId } = request;
    this.parts.introductions.introduce(requester, requesterId, targetId);
  }

  async #judge({ targetId, text, signature }: Request): Promise<GrantOutcome> {
    try {
      const bytes = (await this.parts.keys()?.keyOf(targetId)) ?? this.parts.nodes.keyOf(targetId);
      if (!bytes) return "unknown_key";
      const key = await importKey(bytes);
      if (!key) return "bad_key";
      const isSigned = await crypto.subtle.verify("Ed25519", key, signature, Buffer.from(text));
      return isSigned ? "ok" : "forged";
    } catch (error) {
      // One request must not end the beacon. A key of the node's own telling is no substitute: the
      // source may know better.
      if (error instanceof KeySourceError) this.#complain(error);
      else this.parts.guard.report("verifying a punch grant", error);
      return "key_source";
    }
  }

  #count(outcome: GrantOutcome): void {
    const { memory } = this.parts;
    memory.counters[memory.grantsRow + grantColumn(outcome)]!++;
  }

  #complain({ message }: Error): void {
    if (this.#stopped) return;
    const reason = `punch requests are not served, as their targets' keys cannot be had: ${message}`;
    this.#complaints.warn("keys", reason);
  }
}
