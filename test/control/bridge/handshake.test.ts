import { beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import {
  AUTH_OK,
  Challenge,
  HANDSHAKE_REFUSALS,
  type KeyOf,
  NONCE_MS,
  type Proof,
  REPLY_BYTES_MAX,
  REPLY_MS,
} from "../../../src/control/bridge/handshake.ts";
import { installed } from "../../e2e/support/program.ts";
import { temporaryFolder } from "../../support/folder.ts";
import { base64, keysOf, NodeIdentity } from "../../support/pilot-node.ts";

const ISSUED_MS = 5_000_000;
const UNIX_S = 1_790_000_000;

const node = NodeIdentity.create(42);
const other = NodeIdentity.create(43);
const known = keysOf(node, other);
/** A source that must not be asked. */
const nobodyAsks: KeyOf = async (nodeId) => {
  throw new Error(`asked for the key of ${nodeId}`);
};

let nowMs: number;
let challenge: Challenge;
const renew = () => {
  nowMs = ISSUED_MS;
  challenge = new Challenge(ISSUED_MS, UNIX_S);
};
beforeEach(renew);

const verify = (reply: string, keyOf: KeyOf = known): Promise<Proof> =>
  challenge.verify(reply, keyOf, () => nowMs);

/** Judges a reply to a new challenge; a source that must not be asked unless one is given. */
async function judged(
  replyTo: (challengeText: string) => string,
  keyOf: KeyOf = nobodyAsks,
): Promise<string | number> {
  renew();
  const { nodeId, refusal } = await verify(replyTo(challenge.text), keyOf);
  return nodeId ?? refusal;
}

/** A reply whose JSON is written by hand: `sig` is right, whatever else stands there. */
const written = (json: (sig: string) => string) => (text: string) =>
  json(base64(node.sign(node.proofText(text))));

describe("the challenge", () => {
  test("is the text that nodes read", () => {
    expect(challenge.text).toMatch(
      /^\{"type":"auth_challenge","nonce":"[\da-f]{64}","ts":1790000000\}$/,
    );
  });

  test("is another one each time, in all of its bytes", () => {
    const nonces = Array.from(
      { length: 500 },
      () => JSON.parse(new Challenge(0, 0).text).nonce as string,
    );
    expect(new Set(nonces).size).toBe(500);
    for (let at = 0; at < 64; at++)
      expect(new Set(nonces.map((nonce) => nonce[at])).size).toBeGreaterThan(8);
  });
});

test("the last word is JSON", () => {
  expect(JSON.parse(AUTH_OK)).toEqual({ type: "auth_ok" });
});

test("each refusal has a name of its own that a metric can carry", () => {
  expect(new Set(HANDSHAKE_REFUSALS).size).toBe(HANDSHAKE_REFUSALS.length);
  for (const name of HANDSHAKE_REFUSALS) expect(name).toMatch(/^[a-z]+(_[a-z]+)*$/);
});

describe("a node is believed", () => {
  test.each(["today", "older"] as const)("with the text of %s", async (form) => {
    expect(await verify(node.reply(challenge.text, { form }))).toEqual({ nodeId: 42 });
  });

  test.each<[string, (nonce: string) => string]>([
    ["today", (nonce) => `compat_auth:42:1790000000:${nonce}`],
    ["older", (nonce) => `compat_auth:42:${nonce}`],
  ])("by the text to the letter: %s", async (_, textFor) => {
    const sig = base64(node.sign(textFor(JSON.parse(challenge.text).nonce)));
    expect(await verify(`{"type":"auth_reply","node_id":42,"sig":"${sig}"}`)).toEqual({
      nodeId: 42,
    });
  });

  test.each([1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1])("by the id %d", async (nodeId) => {
    const one = NodeIdentity.create(nodeId);
    const asked: number[] = [];
    const keyOf = (id: number) => {
      asked.push(id);
      return keysOf(one)(id);
    };
    expect(await verify(one.reply(challenge.text), keyOf)).toEqual({ nodeId });
    expect(asked).toEqual([nodeId]);
  });

  test.each<[string, unknown]>([
    ["none", undefined],
    ["null", null],
    ["a number", 5],
    ["no base64", "?!"],
    ["another node's", base64(other.publicKey)],
    ["an object", { key: [1] }],
  ])("whatever key the reply brings: %s", async (_, public_key) => {
    expect(await verify(node.reply(challenge.text, { public_key }))).toEqual({ nodeId: 42 });
  });

  test("with fields that nobody knows", async () => {
    const reply = node.reply(challenge.text, {
      version: 2,
      toString: null,
      nodeId: 7,
      ts: 1,
      nonce: "x",
    });
    expect(await verify(reply)).toEqual({ nodeId: 42 });
  });

  test("with white space and escapes, as JSON has them", async () => {
    const spaced = written(
      (sig) => ` {\n"type" : "auth_\\u0072eply", "node_id":42.0,\t"sig":"${sig}"}\r\n`,
    );
    expect(await judged(spaced, known)).toBe(42);
  });

  test("with a field that comes twice, by the last one", async () => {
    const twice = written(
      (sig) => `{"node_id":43,"type":"auth_reply","sig":"${sig}","node_id":42}`,
    );
    expect(await judged(twice, known)).toBe(42);
    const wrongLast = written(
      (sig) => `{"node_id":42,"type":"auth_reply","sig":"${sig}","node_id":43}`,
    );
    expect(await judged(wrongLast, known)).toBe("signature");
  });

  test("with a key that RFC 8032 gives as an example", async () => {
    // Section 7.1, tests 1 to 3: the secret key and the public key.
    const pairs = [
      [
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
      ],
      [
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
      ],
      [
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
      ],
    ] as const;
    for (const [secret, publicKey] of pairs) {
      const one = NodeIdentity.create(42, Buffer.from(secret, "hex"));
      const keyOf = async () => Buffer.from(publicKey, "hex");
      expect(await judged((text) => one.reply(text), keyOf)).toBe(42);
    }
  });
});

describe.skipIf(!installed("openssl"))("with openssl in the node's place (needs openssl)", () => {
  const folder = temporaryFolder();
  const secretFile = join(folder, "secret.pem");

  const openssl = (...args: string[]): Uint8Array => {
    const { exitCode, stdout, stderr } = Bun.spawnSync(["openssl", ...args]);
    if (exitCode !== 0) throw new Error(`openssl ${args[0]}: ${stderr}`);
    return stdout;
  };

  test.each(["today", "older"] as const)("the text of %s is believed", async (form) => {
    openssl("genpkey", "-algorithm", "ed25519", "-out", secretFile);
    const key = openssl("pkey", "-in", secretFile, "-pubout", "-outform", "DER").slice(-32);
    const textFile = join(folder, "text");
    await Bun.write(textFile, node.proofText(challenge.text, form));
    const sig = openssl("pkeyutl", "-sign", "-rawin", "-inkey", secretFile, "-in", textFile);
    const reply = JSON.stringify({ type: "auth_reply", node_id: 42, sig: base64(sig) });
    expect(await verify(reply, async () => key)).toEqual({ nodeId: 42 });
  });
});

describe("a reply that is none", () => {
  const tooLong = (bytes: number) => (text: string) => {
    const filler = "\u00fc"; // two bytes, one character
    const short = Buffer.byteLength(node.reply(text, { filler: "" }));
    return node.reply(text, {
      filler: filler.repeat((bytes - short) >> 1) + "x".repeat((bytes - short) & 1),
    });
  };

  test("as it is too long", async () => {
    expect(Buffer.byteLength(tooLong(REPLY_BYTES_MAX)(challenge.text))).toBe(4096);
    expect(await judged(tooLong(REPLY_BYTES_MAX), known)).toBe(42);
    expect(await judged(tooLong(REPLY_BYTES_MAX + 1))).toBe("malformed");
  });

  test.each([
    "",
    " ",
    "{",
    "}",
    "{}",
    "[]",
    "null",
    "true",
    "42",
    '"auth_reply"',
    "NaN",
    "undefined",
    "\0",
    "\ud800",
    '{"type":"auth_reply"',
    "{'type':'auth_reply'}",
    "[".repeat(4096),
    '{"a":'.repeat(800),
    AUTH_OK,
  ])("%j", async (reply) => {
    expect(await judged(() => reply)).toBe("malformed");
  });

  test.each<[string, (reply: string) => string]>([
    ["cut short", (reply) => reply.slice(0, -1)],
    ["with something behind it", (reply) => `${reply}{}`],
    ["twice", (reply) => reply + reply],
    ["in an array", (reply) => `[${reply}]`],
    ["in a string", (reply) => JSON.stringify(reply)],
    ["under another name", (reply) => `{"auth_reply":${reply}}`],
    ["with a byte order mark", (reply) => `\ufeff${reply}`],
    ["with a comma at its end", (reply) => reply.replace("}", ",}")],
    ["with a comment", (reply) => `${reply}//`],
    ["in the prototype", (reply) => `{"__proto__":${reply}}`],
    ["in the constructor's prototype", (reply) => `{"constructor":{"prototype":${reply}}}`],
  ])("%s", async (_, change) => {
    expect(await judged((text) => change(node.reply(text)))).toBe("malformed");
  });

  test.each([
    undefined,
    null,
    "",
    "auth_challenge",
    "auth_ok",
    "AUTH_REPLY",
    "auth_reply ",
    [["auth_reply"]],
    0,
    {},
  ])("of type %j", async (type) => {
    expect(await judged((text) => node.reply(text, { type }))).toBe("malformed");
    // What else is wrong is not looked at.
    expect(await judged((text) => node.reply(text, { type, node_id: 0 }))).toBe("malformed");
  });
});

test("keys that reach for a prototype do nothing", async () => {
  const reply = written(
    (sig) =>
      `{"__proto__":{"node_id":43,"polluted":1},"constructor":{"prototype":{"polluted":1}},` +
      `"type":"auth_reply","node_id":42,"sig":"${sig}"}`,
  );
  expect(await judged(reply, known)).toBe(42);
  expect({}).not.toHaveProperty("polluted");
});

describe("an id that no node has", () => {
  test.each([
    "0",
    "-0",
    "0.0",
    "-1",
    "1.5",
    "42.000001",
    "4294967296",
    "4294967338", // 42, if it were cut to 32 bits
    "-4294967254", // so is this
    "9007199254740993",
    "18446744073709551658",
    "1e400",
    "-1e400",
    "1e-400",
    '"42"',
    '""',
    "[42]",
    "[]",
    "{}",
    '{"valueOf":42}',
    "true",
    "null",
  ])("%s", async (id) => {
    const reply = written((sig) => `{"type":"auth_reply","node_id":${id},"sig":"${sig}"}`);
    expect(await judged(reply)).toBe("node_id");
  });

  test("or none at all", async () => {
    expect(await judged((text) => node.reply(text, { node_id: undefined }))).toBe("node_id");
  });

  test.each(["NaN", "Infinity", "0x2a", "042", "+42", "42n", "42."])(
    "%s, which is no JSON",
    async (id) => {
      const reply = written((sig) => `{"type":"auth_reply","node_id":${id},"sig":"${sig}"}`);
      expect(await judged(reply)).toBe("malformed");
    },
  );
});

describe("a signature that is none", () => {
  const nextDigit = (digit: string) => String.fromCharCode(digit.charCodeAt(0) + 1);

  test.each<[string, (right: string) => unknown]>([
    ["left out", () => undefined],
    ["null", () => null],
    ["a number", () => 5],
    ["an array of bytes", (right) => [...Buffer.from(right, "base64")]],
    ["an array around it", (right) => [right]],
    ["empty", () => ""],
    ["63 bytes", (right) => base64(Buffer.from(right, "base64").subarray(1))],
    ["65 bytes", (right) => base64(Buffer.concat([Buffer.from(right, "base64"), Buffer.alloc(1)]))],
    ["66 bytes", (right) => base64(Buffer.concat([Buffer.from(right, "base64"), Buffer.alloc(2)]))],
    ["a digit short", (right) => right.slice(1)],
    ["a digit longer", (right) => `A${right}`],
    ["hexadecimal", (right) => Buffer.from(right, "base64").toString("hex")],
    ["without its padding", (right) => right.slice(0, -2)],
    ["with half of its padding", (right) => right.slice(0, -1)],
    ["with more padding", (right) => `${right}=`],
    ["padded in front", (right) => `==${right.slice(0, -2)}`],
    ["a space in front", (right) => ` ${right}`],
    ["a line break behind", (right) => `${right}\n`],
    ["a line break within", (right) => `${right.slice(0, 76)}\r\n${right.slice(76)}`],
    ["NUL within", (right) => `${right.slice(0, 40)}\0${right.slice(40)}`],
    ["base64url of 62", (right) => `-${right.slice(1)}`],
    ["base64url of 63", (right) => `_${right.slice(1)}`],
    ["another character", (right) => `*${right.slice(1)}`],
    ["a full-width digit", (right) => `\uff11${right.slice(1)}`],
    // The last two bits of 64 bytes are followed by four that must be zero: A, Q, g, w and their
    // neighbours.
    [
      "with a bit behind its end",
      (right) => right.replace(/.==$/, (end) => `${nextDigit(end[0]!)}==`),
    ],
    ["with all bits behind its end", (right) => `${right.slice(0, -3)}/==`],
  ])("%s", async (_, change) => {
    const reply = (text: string) =>
      node.reply(text, { sig: change(base64(node.sign(node.proofText(text)))) });
    expect(await judged(reply)).toBe("malformed");
  });

  test("by its last digit, where only four can be; before it any digit can", async () => {
    for (const digit of "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
      const before = (text: string) => node.reply(text, { sig: `${digit.repeat(85)}A==` });
      expect(await judged(before, known)).toBe("signature");
      const last = (text: string) => node.reply(text, { sig: `${"A".repeat(85)}${digit}==` });
      const expected = "AQgw".includes(digit) ? "signature" : "malformed";
      expect([digit, await judged(last, known)]).toEqual([digit, expected]);
    }
  });
});

describe("a signature that does not count", () => {
  const refused = async (replyTo: (text: string) => string) =>
    expect(await judged(replyTo, known)).toBe("signature");
  const signing = (text: (challengeText: string) => string) => (challengeText: string) =>
    node.reply(challengeText, { sig: base64(node.sign(text(challengeText))) });

  test("by the key that the reply brings", async () => {
    const stranger = NodeIdentity.create(42);
    await refused((text) => stranger.reply(text));
    await refused((text) => stranger.reply(text, { form: "older" }));
  });

  test("by another node's key", async () => {
    await refused((text) => other.as(42).reply(text));
    await refused((text) => other.reply(text, { node_id: 42 }));
  });

  test("of one's own, for another node", async () => {
    await refused((text) => node.as(43).reply(text));
    await refused((text) => node.reply(text, { node_id: 43 }));
  });

  test("for another challenge", async () => {
    const earlier = new Challenge(ISSUED_MS, UNIX_S);
    const replies = [node.reply(earlier.text), node.reply(earlier.text, { form: "older" })];
    expect(await earlier.verify(replies[0]!, known, () => nowMs)).toEqual({ nodeId: 42 });
    for (const reply of replies) await refused(() => reply);
  });

  test("for another time", async () => {
    await refused((text) => node.reply(text.replace("1790000000", "1790000001")));
    await refused((text) => node.reply(text.replace("1790000000", "0")));
  });

  test.each<[string, (challengeText: string) => string]>([
    ["nothing", () => ""],
    ["the challenge", (text) => text],
    ["the nonce", (text) => JSON.parse(text).nonce],
    ["another word", (text) => node.proofText(text).replace("compat_auth", "compat_auth2")],
    ["capitals", (text) => node.proofText(text).toUpperCase()],
    ["no word", (text) => node.proofText(text).replace("compat_auth:", "")],
    ["a line", (text) => `${node.proofText(text)}\n`],
    ["a space in front", (text) => ` ${node.proofText(text)}`],
    ["an id with a zero", (text) => node.proofText(text).replace(":42:", ":042:")],
    ["no id", (text) => node.proofText(text).replace(":42:", ":")],
    ["nonce before time", (text) => `compat_auth:42:${JSON.parse(text).nonce}:${UNIX_S}`],
    ["no nonce", () => `compat_auth:42:${UNIX_S}`],
    ["an empty nonce", () => `compat_auth:42:${UNIX_S}:`],
  ])("of %s", async (_, text) => {
    await refused(signing(text));
  });

  test("of zeros, or of chance", async () => {
    await refused((text) => node.reply(text, { sig: base64(new Uint8Array(64)) }));
    await refused((text) =>
      node.reply(text, { sig: base64(crypto.getRandomValues(new Uint8Array(64))) }),
    );
  });

  test("with the same number written larger", async () => {
    // S and S + L are one number to the curve, but only the smaller one is a signature (RFC 8032,
    // 5.1.7).
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    await refused((text) => {
      const sig = Buffer.from(node.sign(node.proofText(text)));
      const s = BigInt(`0x${Buffer.from(sig.subarray(32)).reverse().toString("hex")}`) + order;
      sig.set(Buffer.from(s.toString(16).padStart(64, "0"), "hex").reverse(), 32);
      return node.reply(text, { sig: base64(sig) });
    });
  });

  test("with any bit flipped", async () => {
    const bit = fc.nat(511);
    await fc.assert(
      fc.asyncProperty(bit, fc.constantFrom("today", "older"), async (at, form) => {
        await refused((text) => {
          const sig = node.sign(node.proofText(text, form));
          sig[at >> 3]! ^= 1 << (at & 7);
          return node.reply(text, { form, sig: base64(sig) });
        });
      }),
      { numRuns: 1000 },
    );
  });
});

describe("a node without a usable key", () => {
  test("is unknown", async () => {
    expect(await verify(NodeIdentity.create(44).reply(challenge.text))).toEqual({
      refusal: "unknown_node",
    });
  });

  test.each([0, 1, 31, 33, 44, 64])("has %d bytes stored", async (bytes) => {
    const stored = Buffer.concat([node.publicKey, node.publicKey]).subarray(0, bytes);
    expect(
      await judged(
        (text) => node.reply(text),
        async () => stored,
      ),
    ).toBe("stored_key");
  });

  test("has 32 bytes stored that are no point of the curve", async () => {
    const refusal = await judged(
      (text) => node.reply(text),
      async () => new Uint8Array(32).fill(2),
    );
    expect(refusal).toBe("signature");
  });

  test("has its key in the middle of a larger buffer", async () => {
    const stored = Buffer.concat([other.publicKey, node.publicKey, other.publicKey]).subarray(
      32,
      64,
    );
    expect(
      await judged(
        (text) => node.reply(text),
        async () => stored,
      ),
    ).toBe(42);
  });
});

describe("a key that anybody can sign for", () => {
  // The field and the curve of RFC 8032, 5.1.
  const p = 2n ** 255n - 19n;
  const mod = (n: bigint) => ((n % p) + p) % p;
  const power = (base: bigint, exponent: bigint): bigint => {
    if (exponent === 0n) return 1n;
    const half = power(mod(base * base), exponent >> 1n);
    return exponent & 1n ? mod(half * base) : half;
  };
  const inverse = (n: bigint) => power(n, p - 2n);
  const root = (square: bigint): bigint | undefined => {
    const candidate = power(square, (p + 3n) / 8n);
    const candidates = [candidate, mod(candidate * power(2n, (p - 1n) / 4n))];
    return candidates.find((r) => mod(r * r) === mod(square));
  };
  const d = mod(-121665n * inverse(121666n));

  /**
   * y of the points of order 1, 2, 4 and 8: for the last, doubling gives y = 0, so x² = -y² and
   * d·y⁴ + 2y² = 1.
   */
  const rootOfD1 = root(1n + d)!;
  const ySquared = [mod((rootOfD1 - 1n) * inverse(d)), mod((-rootOfD1 - 1n) * inverse(d))];
  const ofOrder8 = ySquared.map(root).find((y) => y !== undefined)!;
  const ys = [1n, p - 1n, 0n, ofOrder8, p - ofOrder8];
  // 19 numbers can be written larger by p and still fit; two of these are among them.
  const encodings = [...ys, ...ys.map((y) => y + p).filter((y) => y < 2n ** 255n)]
    .flatMap((y) => [y, y + 2n ** 255n]) // either sign of x
    .map((y) => Buffer.from(y.toString(16).padStart(64, "0"), "hex").reverse());

  test("there are 14 of them", () => {
    expect(new Set(encodings.map((key) => key.toString("hex"))).size).toBe(14);
    expect(encodings).toContainEqual(Buffer.alloc(32));
  });

  test.each(encodings.map((key) => [key.toString("hex"), key] as const))("%s", async (_, key) => {
    for (const r of encodings) {
      const sig = base64(Buffer.concat([r, Buffer.alloc(32)]));
      expect(
        await judged(
          (text) => node.reply(text, { sig }),
          async () => key,
        ),
      ).toBe("stored_key");
    }
  });

  test("is left as it was", async () => {
    const key = Buffer.from(encodings[1]!);
    await judged(
      (text) => node.reply(text),
      async () => key,
    );
    expect(key).toEqual(encodings[1]!);
  });

  test("its neighbours are keys like any other", async () => {
    for (const key of encodings) {
      const neighbour = Buffer.from(key);
      neighbour[15]! ^= 1;
      expect(
        await judged(
          (text) => node.reply(text),
          async () => neighbour,
        ),
      ).toBe("signature");
    }
  });
});

describe("a key source", () => {
  test("that cannot tell: its error comes through", async () => {
    const error = new Error("the source is away");
    await expect(verify(node.reply(challenge.text), () => Promise.reject(error))).rejects.toBe(
      error,
    );
    expect(await verify(node.reply(challenge.text))).toEqual({ refusal: "used" });
  });
});

describe("a second reply is refused", () => {
  test("after a good one", async () => {
    const reply = node.reply(challenge.text);
    expect(await verify(reply)).toEqual({ nodeId: 42 });
    expect(await verify(reply, nobodyAsks)).toEqual({ refusal: "used" });
  });

  test.each<[string, (text: string) => string]>([
    ["malformed", () => "no JSON"],
    ["node_id", (text) => node.reply(text, { node_id: 0 })],
    ["unknown_node", (text) => NodeIdentity.create(44).reply(text)],
    ["signature", (text) => other.as(42).reply(text)],
  ])("after one that was refused as %s", async (refusal, replyTo) => {
    expect(await judged(replyTo, known)).toBe(refusal);
    for (let times = 0; times < 3; times++)
      expect(await verify(node.reply(challenge.text), nobodyAsks)).toEqual({ refusal: "used" });
  });

  test("after one that was late", async () => {
    nowMs += REPLY_MS + 1;
    expect(await verify(node.reply(challenge.text), nobodyAsks)).toEqual({ refusal: "late" });
    nowMs = ISSUED_MS;
    expect(await verify(node.reply(challenge.text), nobodyAsks)).toEqual({ refusal: "used" });
  });

  test("while the first waits for its key", async () => {
    const { promise, resolve } = Promise.withResolvers<Uint8Array>();
    const first = verify(node.reply(challenge.text), () => promise);
    expect(await verify(node.reply(challenge.text), nobodyAsks)).toEqual({ refusal: "used" });
    resolve(node.publicKey);
    expect(await first).toEqual({ nodeId: 42 });
  });

  test("of many at once", async () => {
    const reply = node.reply(challenge.text);
    const proofs = await Promise.all(Array.from({ length: 100 }, () => verify(reply)));
    expect(proofs[0]).toEqual({ nodeId: 42 });
    expect(proofs.slice(1)).toEqual(Array(99).fill({ refusal: "used" }));
  });
});

describe("late", () => {
  test("is a reply after ten seconds", async () => {
    nowMs += 10_000;
    expect(await verify(node.reply(challenge.text))).toEqual({ nodeId: 42 });
    renew();
    nowMs += 10_001;
    expect(await verify(node.reply(challenge.text), nobodyAsks)).toEqual({ refusal: "late" });
    renew();
    nowMs += 10_001;
    expect(await verify("no JSON", nobodyAsks)).toEqual({ refusal: "late" });
  });

  test("is a key after thirty seconds, counted from the challenge", async () => {
    const cameAfterMs =
      (ms: number): KeyOf =>
      async (nodeId) => {
        nowMs = ISSUED_MS + ms;
        return known(nodeId);
      };
    const afterMs = async (ms: number) => {
      renew();
      nowMs += REPLY_MS;
      return verify(node.reply(challenge.text), cameAfterMs(ms));
    };
    expect(await afterMs(NONCE_MS)).toEqual({ nodeId: 42 });
    expect(await afterMs(NONCE_MS + 1)).toEqual({ refusal: "late" });
    expect(NONCE_MS).toBe(30_000);
  });
});

describe("whatever is sent", () => {
  test("is refused, never thrown", async () => {
    const texts = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.json(),
      fc.string().map((text) => `{"type":"auth_reply",${text}}`),
      fc
        .record({ type: fc.constant("auth_reply"), node_id: fc.jsonValue(), sig: fc.jsonValue() })
        .map((reply) => JSON.stringify(reply)),
    );
    await fc.assert(
      fc.asyncProperty(texts, async (text) => {
        expect(await judged(() => text)).toBeOneOf(["malformed", "node_id"]);
      }),
      { numRuns: 2000 },
    );
  });

  test("one node alone is believed: the one whose key signed its own id", async () => {
    const ids = fc.integer({ min: 1, max: 2 ** 32 - 1 });
    await fc.assert(
      fc.asyncProperty(ids, ids, fc.boolean(), async (id, claimed, same) => {
        const signer = NodeIdentity.create(id);
        const claimant = same ? id : claimed;
        const keyOf = keysOf(NodeIdentity.create(claimant), signer);
        const verdict = await judged((text) => signer.reply(text, { node_id: claimant }), keyOf);
        expect(verdict).toBe(claimant === id ? id : "signature");
      }),
    );
  });

  test("any node that answers is believed", async () => {
    const ids = fc.integer({ min: 1, max: 2 ** 32 - 1 });
    await fc.assert(
      fc.asyncProperty(
        ids,
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.constantFrom("today", "older"),
        async (id, secret, form) => {
          const one = NodeIdentity.create(id, secret);
          expect(await judged((text) => one.reply(text, { form }), keysOf(one))).toBe(id);
        },
      ),
    );
  });
});
