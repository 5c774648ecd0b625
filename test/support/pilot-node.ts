/**
 * A node with a key: how it answers a bridge's challenge, and lets others punch to it. Written from
 * the wire, not from the source.
 */
import { createPrivateKey, createPublicKey, type KeyObject, randomBytes, sign } from "node:crypto";

/** What stands before a 32-byte secret in PKCS #8 (RFC 8410). */
const PKCS8_HEAD = Buffer.from("302e020100300506032b657004220420", "hex");
const KEY_BYTES = 32;

/** "today": the signed text holds the time of the challenge; "older": it does not. */
export type ReplyForm = "today" | "older";

export class NodeIdentity {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;

  private constructor(
    readonly nodeId: number,
    private readonly privateKey: KeyObject,
  ) {
    const spki = createPublicKey(privateKey).export({ format: "der", type: "spki" });
    this.publicKey = Uint8Array.from(spki.subarray(-KEY_BYTES));
  }

  /** @param secret 32 bytes, as RFC 8032 has them */
  static create(nodeId: number, secret: Uint8Array = randomBytes(KEY_BYTES)): NodeIdentity {
    const key = Buffer.concat([PKCS8_HEAD, secret]);
    return new NodeIdentity(nodeId, createPrivateKey({ key, format: "der", type: "pkcs8" }));
  }

  /** The same key under another id. */
  as(nodeId: number): NodeIdentity {
    return new NodeIdentity(nodeId, this.privateKey);
  }

  /** The 64 bytes of a signature. */
  sign(text: string): Uint8Array {
    return sign(null, Buffer.from(text), this.privateKey);
  }

  /**
   * This node's leave for another to punch to it, as it stands behind a PunchRequest: expiry and
   * signature.
   */
  grant(requesterId: number, expiryS: number): Uint8Array {
    const bytes = Buffer.alloc(8 + 64);
    bytes.writeBigUInt64BE(BigInt(expiryS));
    bytes.set(this.sign(`punch-grant:${requesterId}:${this.nodeId}:${expiryS}`), 8);
    return bytes;
  }

  /** The text that this node has to sign. */
  proofText(challengeText: string, form: ReplyForm = "today"): string {
    const { nonce, ts } = JSON.parse(challengeText);
    const middle = form === "today" ? `${ts}:` : "";
    return `compat_auth:${this.nodeId}:${middle}${nonce}`;
  }

  /**
   * An auth_reply. Any other field in `options` replaces the correct one; undefined leaves it out.
   */
  reply(
    challengeText: string,
    options: { readonly form?: ReplyForm; readonly [field: string]: unknown } = {},
  ): string {
    const { form, ...fields } = options;
    return JSON.stringify({
      type: "auth_reply",
      node_id: this.nodeId,
      public_key: base64(this.publicKey),
      sig: base64(this.sign(this.proofText(challengeText, form))),
      ...fields,
    });
  }
}

/** A key source that knows these nodes. */
export function keysOf(
  ...nodes: NodeIdentity[]
): (nodeId: number) => Promise<Uint8Array | undefined> {
  const keys = new Map(nodes.map(({ nodeId, publicKey }) => [nodeId, publicKey]));
  return async (nodeId) => keys.get(nodeId);
}

/** Standard base64 with its padding, as Go's encoding/json writes bytes. */
export const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");
