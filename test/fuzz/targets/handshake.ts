/**
 * What a node, or who says that it is one, sends to a WebSocket before it has proven anything, and
 * what proxies say of it.
 */
import { generateKeyPairSync, sign } from "node:crypto";
import { isIP } from "node:net";
import { TrustedProxies } from "../../../src/control/bridge/client-address.ts";
import {
  Challenge,
  HANDSHAKE_REFUSALS,
  REPLY_BYTES_MAX,
} from "../../../src/control/bridge/handshake.ts";
import type { Choices } from "../choices.ts";
import { jsonValue, mutateText } from "../mutate.ts";
import { fail, mustBe, type Seen, type Target } from "../target.ts";

const NODE_ID = 42;
const { publicKey, privateKey } = generateKeyPairSync("ed25519");
const KEY = new Uint8Array(publicKey.export({ type: "spki", format: "der" }).subarray(-32));
const REFUSALS: ReadonlySet<string> = new Set(HANDSHAKE_REFUSALS);

export const HANDSHAKE: Target = {
  name: "handshake",
  about: "replies to the WebSocket bridge's challenge",
  choiceBytes: 120,
  open: () => ({ check: checkHandshake }),
};

async function checkHandshake(choices: Choices, seen: Seen): Promise<void> {
  const challenge = new Challenge(0, 1_700_000_000);
  const { nonce, ts } = JSON.parse(challenge.text) as { nonce: string; ts: number };
  const signed = choices.pick([
    `compat_auth:${NODE_ID}:${ts}:${nonce}`,
    `compat_auth:${NODE_ID}:${nonce}`,
    "another text",
  ]);
  const isRare = choices.oneIn(8); // a signature costs more than all the rest
  const sig = isRare
    ? sign(null, Buffer.from(signed), privateKey).toString("base64")
    : "A".repeat(86).concat("==");
  const fields: Record<string, unknown> = {
    type: "auth_reply",
    node_id: NODE_ID,
    public_key: "",
    sig,
  };
  if (choices.oneIn(2)) fields[choices.pick(Object.keys(fields))] = jsonValue(choices, 2);
  const right = JSON.stringify(fields);
  const reply = choices.oneIn(2) ? mutateText(choices, right, 4) : right;
  seen.note(() => reply);
  const lateMs = choices.pick([0, 0, 0, 9_999, 10_001, 40_000]);
  const knows = async (nodeId: number) => (nodeId === NODE_ID ? KEY : undefined);
  const proof = await challenge.verify(reply, knows, () => lateMs);
  if (proof.refusal === undefined) {
    mustBe("the node", proof.nodeId, NODE_ID);
    if (!isRare || signed === "another text" || lateMs > 10_000) fail("proven without a proof");
    seen.outcome("proven");
  } else {
    if (!REFUSALS.has(proof.refusal)) fail(`refused as ${proof.refusal}`);
    seen.outcome(proof.refusal);
    if (
      reply === right &&
      reply.length <= REPLY_BYTES_MAX &&
      isRare &&
      signed !== "another text" &&
      lateMs <= 10_000 &&
      isUnchanged(fields, sig)
    )
      fail("a good proof is refused");
  }
  mustBe("a second reply", (await challenge.verify(right, knows, () => 0)).refusal, "used");
}

function isUnchanged({ type, node_id, sig }: Record<string, unknown>, signature: string): boolean {
  return type === "auth_reply" && node_id === NODE_ID && sig === signature;
}

const PROXIES = new TrustedProxies(["10.0.0.0/8", "2001:db8::/32"]);
const PEERS = ["10.0.0.1", "203.0.113.9", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1"];

export const FORWARDED: Target = {
  name: "forwarded",
  about: "X-Forwarded-For, and whom it says a proxy speaks for",
  choiceBytes: 80,
  open: () => ({ check: checkForwarded }),
};

function checkForwarded(choices: Choices, seen: Seen): void {
  const peer = choices.pick(PEERS);
  const hop = () =>
    choices.pick([
      "203.0.113.7",
      "10.9.9.9",
      "2001:db8::5",
      "[2001:db8::6]:80",
      "198.51.100.1:7",
      "unknown",
      "",
    ]);
  const list = choices.some(20, hop).join(choices.pick([",", ", ", " ,"]));
  const header = choices.oneIn(8) ? null : mutateText(choices, list, 3);
  seen.note(() => `${peer} ${JSON.stringify(header)}`);
  const client = PROXIES.clientOf(peer, header);
  if (isIP(client) === 0) fail(`a client at ${JSON.stringify(client)}`);
  const isTrusted = peer !== "203.0.113.9" && peer !== "fe80::1";
  if (!isTrusted) mustBe("the client of no proxy", client, peer);
  seen.outcome(client === peer ? "itself" : isIP(client) === 4 ? "IPv4" : "IPv6");
}
