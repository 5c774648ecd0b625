/**
 * How a node proves its id on a WebSocket, without the WebSocket. Three texts:
 *
 *     server: {"type":"auth_challenge","nonce":"<64 hex digits>","ts":<unix seconds>}
 *     node:   {"type":"auth_reply","node_id":42,"public_key":"<base64>","sig":"<base64>"}
 *     server: {"type":"auth_ok"}
 *
 * `sig` is an Ed25519 signature of "compat_auth:<node_id>:<ts>:<nonce>", or, by older daemons, of
 * the same without the time. It counts by the key that is known for that node. The reply's own key
 * is not looked at: anybody can sign with a key that they bring along.
 */
import { randomBytes } from "node:crypto";
import * as v from "valibot";
import { importKey } from "../keys/ed25519.ts";

/** The server's last word. */
export const AUTH_OK = '{"type":"auth_ok"}';
/** A reply is some 300 bytes. */
export const REPLY_BYTES_MAX = 4096;
/** How long after the challenge a reply may arrive. */
export const REPLY_MS = 10_000;
/** How long after the challenge the node's key may become known, however slow its source is. */
export const NONCE_MS = 30_000;

const NONCE_BYTES = 32;
const NODE_ID_MAX = 2 ** 32 - 1;
/** 64 bytes in base64 with padding; the last digit holds two bits and four zeros. */
const SIGNATURE = /^[A-Za-z\d+/]{85}[AQgw]==$/;

/** Why a node is refused, as the metric names it. */
export const HANDSHAKE_REFUSALS = [
  /** No auth_reply: too long, not JSON, wrong shape, or a signature that is not 64 bytes. */
  "malformed",
  /** An auth_reply whose node_id is no whole number from 1 to 4294967295. */
  "node_id",
  /** Nobody has a key for that node. */
  "unknown_node",
  /** What is stored for that node is no Ed25519 key, or one that proves nothing. */
  "stored_key",
  /** Not signed with the node's key, or not for this challenge. */
  "signature",
  /** No reply came in time, or the node's key did not. */
  "late",
  /** A second reply to one challenge. */
  "used",
] as const;
export type HandshakeRefusal = (typeof HANDSHAKE_REFUSALS)[number];

/** What a reply comes to: the node whose key signed it, or why it is refused. */
export type Proof =
  | { readonly nodeId: number; readonly refusal?: undefined }
  | { readonly nodeId?: undefined; readonly refusal: HandshakeRefusal };

/** Returns a node's public key, or undefined for an unknown node. Rejects if unavailable. */
export type KeyOf = (nodeId: number) => Promise<Uint8Array | undefined>;

/** Fields of a reply, in this order, so that a node_id counts only in an auth_reply. */
const authReply = v.object({
  type: v.literal("auth_reply"),
  node_id: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(NODE_ID_MAX)),
  sig: v.pipe(
    v.string(),
    v.regex(SIGNATURE),
    v.transform((base64) => Buffer.from(base64, "base64")),
  ),
});
type AuthReply = v.InferOutput<typeof authReply>;

/** One challenge, for one reply. */
export class Challenge {
  /** The first text of the handshake. */
  readonly text: string;
  readonly #nonce = randomBytes(NONCE_BYTES).toString("hex");
  #used = false;

  /**
   * @param sinceMs when it is sent, by the clock that `verify` is given
   * @param unixS the time of day, in whole seconds
   */
  constructor(
    private readonly sinceMs: number,
    private readonly unixS: number,
  ) {
    this.text = JSON.stringify({ type: "auth_challenge", nonce: this.#nonce, ts: unixS });
  }

  /**
   * Judges the one reply; any further one is "used", also while the first still waits for its key.
   * Rejects only as `keyOf` does. A reply that is malformed or late asks for no key.
   * @param nowMs a monotonic clock
   */
  async verify(reply: string, keyOf: KeyOf, nowMs: () => number): Promise<Proof> {
    if (this.#used) return { refusal: "used" };
    this.#used = true;
    const ageMs = () => nowMs() - this.sinceMs;
    if (ageMs() > REPLY_MS) return { refusal: "late" };
    const parsed = parseReply(reply);
    if (typeof parsed === "string") return { refusal: parsed };
    const { node_id: nodeId } = parsed;
    const stored = await keyOf(nodeId);
    if (ageMs() > NONCE_MS) return { refusal: "late" };
    if (!stored) return { refusal: "unknown_node" };
    const key = await importKey(stored);
    if (!key) return { refusal: "stored_key" };
    return (await this.#isSigned(parsed, key)) ? { nodeId } : { refusal: "signature" };
  }

  async #isSigned({ node_id, sig }: AuthReply, key: CryptoKey): Promise<boolean> {
    const texts = [
      `compat_auth:${node_id}:${this.unixS}:${this.#nonce}`,
      `compat_auth:${node_id}:${this.#nonce}`, // of older daemons
    ];
    for (const text of texts)
      if (await crypto.subtle.verify("Ed25519", key, sig, Buffer.from(text))) return true;
    return false;
  }
}

function parseReply(reply: string): AuthReply | HandshakeRefusal {
  if (Buffer.byteLength(reply) > REPLY_BYTES_MAX) return "malformed";
  let message: unknown;
  try {
    message = JSON.parse(reply);
  } catch {
    return "malformed";
  }
  const checked = v.safeParse(authReply, message, { abortEarly: true });
  if (checked.success) return checked.output;
  return v.getDotPath(checked.issues[0]) === "node_id" ? "node_id" : "malformed";
}
