/** Where the nodes' public keys are known, and how one of a library's user answers for them. */
import { quoted } from "../../config/units.ts";
import type { KeyFunction } from "../feature.ts";
import type { RegistryErrorCode } from "../registry/protocol.ts";

/** How long a function may take: a node waits, and would not wait much longer. */
const KEY_MS = 5_000;
/** Questions to a function that are open at once. */
const OPEN_MAX = 1024;

/** Knows the nodes' Ed25519 public keys. */
export interface KeySource {
  /**
   * @returns the stored key's bytes as they are (whoever uses it checks that there are 32), to be
   * read only, or undefined for a
   * node that the source does not know
   * @throws KeySourceError when the source cannot say at the moment
   */
  keyOf(nodeId: number): Promise<Uint8Array | undefined>;
  /** Ends all lookups; open ones reject with KeySourceError. Safe more than once. */
  close(): void;
}

/** Why a key is unavailable, in a word for metrics. */
export type KeySourceErrorCode = RegistryErrorCode | "busy" | "failed";

/** A source that cannot say. The message is one line for the log: what failed, and what to do. */
export class KeySourceError extends Error {
  override readonly name = "KeySourceError";

  constructor(
    readonly code: KeySourceErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** For questions that are open when a source is closed, and for those after it. */
export function sourceClosed(): KeySourceError {
  return new KeySourceError("closed", "no keys are looked up any more: their source is closed");
}

/** @returns the bytes; undefined unless `text` is their standard base64 with padding */
export function bytesOfBase64(text: string): Uint8Array | undefined {
  const bytes = Buffer.from(text, "base64"); // takes almost anything
  return bytes.toString("base64") === text ? new Uint8Array(bytes) : undefined;
}

export interface FunctionKeysOptions {
  /** How long one call may take. Default: 5000. */
  readonly keyMs?: number;
  /** Calls that are waited for at once. Default: 1024. */
  readonly openMax?: number;
}

/** A function of a library's user as the source. */
export class FunctionKeys implements KeySource {
  /** Ends each question that is open. */
  readonly #open = new Set<(error: KeySourceError) => void>();
  #isClosed = false;
  readonly #keyMs: number;
  readonly #openMax: number;

  constructor(
    private readonly keyFunction: KeyFunction,
    { keyMs = KEY_MS, openMax = OPEN_MAX }: FunctionKeysOptions = {},
  ) {
    this.#keyMs = keyMs;
    this.#openMax = openMax;
  }

  async keyOf(nodeId: number): Promise<Uint8Array | undefined> {
    if (this.#isClosed) throw sourceClosed();
    if (this.#open.size >= this.#openMax)
      throw new KeySourceError(
        "busy",
        `the key function owes ${this.#openMax} keys already: is it too slow?`,
      );
    const { promise: ended, reject: end } = Promise.withResolvers<never>();
    this.#open.add(end);
    const timer = setTimeout(() => end(this.#late(nodeId)), this.#keyMs);
    try {
      return await Promise.race([this.#call(nodeId), ended]);
    } finally {
      clearTimeout(timer);
      this.#open.delete(end);
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const end of this.#open) end(sourceClosed());
  }

  async #call(nodeId: number): Promise<Uint8Array | undefined> {
    let key: unknown;
    try {
      key = await this.keyFunction(nodeId);
    } catch (cause) {
      const reason = cause instanceof Error ? quoted(String(cause.message)) : `a ${typeof cause}`;
      const message = `the key function threw ${reason} for node ${nodeId}: see to what it asks`;
      throw new KeySourceError("failed", message, { cause });
    }
    if (key === undefined || key === null) return undefined;
    if (key instanceof Uint8Array) return key;
    throw new KeySourceError(
      "invalid",
      `the key function answers for node ${nodeId} with a value of type ${typeof key}: ` +
        "it must be a Uint8Array, or undefined for a node that it does not know",
    );
  }

  #late(nodeId: number): KeySourceError {
    return new KeySourceError(
      "timeout",
      `the key function gave no key for node ${nodeId} in ${this.#keyMs} ms: is what it asks well?`,
    );
  }
}
