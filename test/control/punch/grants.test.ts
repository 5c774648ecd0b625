import { afterEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { pino } from "pino";
import { endpointOf } from "../../../ffi/endpoint.ts";
import { type KeySource, KeySourceError } from "../../../src/control/keys/keys.ts";
import {
  GRANT_S_MAX,
  PunchGrants,
  VERIFIED_BURST,
  VERIFIED_PER_S,
} from "../../../src/control/punch/grants.ts";
import { COLUMN, GRANT_OUTCOMES, type GrantOutcome } from "../../../src/shared/counters.ts";
import { GRANT_RATE, RateLimitOwner } from "../../../src/shared/limits.ts";
import { MailboxReader } from "../../../src/shared/mailbox.ts";
import { GRANTS, HASH_SECRET, MAIN_THREAD_LOCK, SharedMemory } from "../../../src/shared/memory.ts";
import { KEY_KEPT } from "../../../src/shared/nodes.ts";
import { NodeTableOwner } from "../../../src/shared/nodes-owner.ts";
import { until } from "../../e2e/support/wait.ts";
import { punchRequest } from "../../e2e/support/wire.ts";
import { NodeIdentity } from "../../support/pilot-node.ts";

const NOW_S = 1_790_000_000;
const REQUESTER = 7;
const target = NodeIdentity.create(0xffff_fff0);
const stranger = NodeIdentity.create(9);
const ASKING = endpointOf("192.0.2.9", 4009);
const HOME = endpointOf("192.0.2.1", 4001);

/** A source that knows what a test says. */
class Keys implements KeySource {
  closed = 0;
  readonly asked: number[] = [];
  constructor(private readonly answer: (nodeId: number) => Promise<Uint8Array | undefined>) {}
  keyOf(nodeId: number): Promise<Uint8Array | undefined> {
    this.asked.push(nodeId);
    return this.answer(nodeId);
  }
  close(): void {
    this.closed++;
  }
}
const knowing = (...nodes: NodeIdentity[]) =>
  new Keys(async (nodeId) => nodes.find((node) => node.nodeId === nodeId)?.publicKey);

const started: PunchGrants[] = [];
afterEach(() => {
  for (const grants of started.splice(0)) grants.stop();
});

function office(keys?: KeySource) {
  const memory = new SharedMemory({ workers: 2, nodesMax: 10, routesMax: 1 });
  memory.words[HASH_SECRET] = 5;
  const nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
  const introduced: { requester: Int32Array; requesterId: number; targetId: number }[] = [];
  const warnings: string[] = [];
  const clock = { wallMs: NOW_S * 1000, nowMs: 0 };
  const grants = new PunchGrants({
    memory,
    nodes,
    introductions: {
      introduce: (requester, requesterId, targetId) =>
        introduced.push({ requester, requesterId, targetId }),
    },
    log: pino({ base: null }, { write: (line: string) => warnings.push(JSON.parse(line).msg) }),
    guard: { report: (work) => warnings.push(`${work} failed`) },
    keys: () => keys,
    wallMs: () => clock.wallMs,
    nowMs: () => clock.nowMs,
  });
  started.push(grants);
  const mailbox = new MailboxReader(memory, GRANTS, 1);
  /** Hands over a request as a worker does. */
  const put = (message: Uint8Array, from = ASKING): void => {
    const packets = new DataView(Uint8Array.from([...message, 0, 0, 0]).buffer);
    if (!mailbox.put(from, packets, 0, message.length)) throw new Error("the mailbox is full");
    for (let mail = mailbox.take(); mail !== undefined; mail = mailbox.take())
      grants.mail.receive(mail);
    mailbox.release();
  };
  const outcomes = (): Partial<Record<GrantOutcome, number>> => {
    const named = GRANT_OUTCOMES.map(
      (name, i) => [name, memory.counters[memory.grantsRow + COLUMN.punchGrants + i]!] as const,
    );
    return Object.fromEntries(named.filter(([, count]) => count !== 0));
  };
  const judged = (count: number) =>
    until(
      `${count} are judged`,
      () => Object.values(outcomes()).reduce((a, b) => a + b, 0) >= count,
    );
  return { memory, nodes, introduced, warnings, clock, grants, put, outcomes, judged };
}

/** A PunchRequest whose grant is right, but for what a test changes. */
const request = (
  grant: Uint8Array = target.grant(REQUESTER, NOW_S + 60),
  requesterId = REQUESTER,
  targetId = target.nodeId,
) => punchRequest(requesterId, targetId, grant);

describe("a grant", () => {
  test("that is good introduces both ends, once each time it is sent", async () => {
    const { put, judged, outcomes, introduced } = office(knowing(target));
    put(request());
    put(request());
    await judged(2);
    expect(outcomes()).toEqual({ ok: 2 });
    expect(introduced).toEqual(
      Array(2).fill({ requester: ASKING, requesterId: REQUESTER, targetId: target.nodeId }),
    );
  });

  test("keeps its requester's address, whatever the mailbox holds afterwards", async () => {
    const { put, judged, introduced } = office(knowing(target));
    const sources = [1, 2, 3].map((host) => endpointOf(`2001:db8::${host}`, 5000 + host));
    for (const source of sources) put(request(), source);
    await judged(3);
    const byPort = (a: Int32Array, b: Int32Array) => a[0]! - b[0]!;
    expect(introduced.map(({ requester }) => requester).sort(byPort)).toEqual(sources.sort(byPort));
  });

  const grant = target.grant(REQUESTER, NOW_S + 60);
  const sign = (text: string) => target.sign(text);
  const withSignature = (signature: Uint8Array, expiryS = NOW_S + 60): Uint8Array => {
    const bytes = Buffer.alloc(72);
    bytes.writeBigUInt64BE(BigInt(expiryS));
    bytes.set(signature, 8);
    return bytes;
  };
  test.each<[string, Uint8Array]>([
    ["for another requester", request(target.grant(8, NOW_S + 60))],
    ["used by another requester", request(grant, 8)],
    ["for another target of the same key", request(target.as(5).grant(REQUESTER, NOW_S + 60))],
    ["signed by somebody else", request(stranger.as(target.nodeId).grant(REQUESTER, NOW_S + 60))],
    ["signed by the requester itself", request(stranger.as(target.nodeId).grant(9, NOW_S + 60), 9)],
    ["whose expiry was moved", request(withSignature(grant.subarray(8), NOW_S + 61))],
    ["of zeros", request(withSignature(new Uint8Array(64)))],
    [
      "of another text",
      request(withSignature(sign(`punch_grant:${REQUESTER}:${target.nodeId}:${NOW_S + 60}`))),
    ],
    [
      "with the ids the other way round",
      request(withSignature(sign(`punch-grant:${target.nodeId}:${REQUESTER}:${NOW_S + 60}`))),
    ],
    [
      "with ids that are signed numbers",
      request(withSignature(sign(`punch-grant:${REQUESTER}:${target.nodeId | 0}:${NOW_S + 60}`))),
    ],
  ])("%s is forged", async (_name, message) => {
    const { put, judged, outcomes, introduced } = office(knowing(target, target.as(5)));
    put(message);
    await judged(1);
    expect([outcomes(), introduced]).toEqual([{ forged: 1 }, []]);
  });

  test("with any one bit of it turned is not good", async () => {
    const { put, judged, outcomes, introduced } = office(knowing(target));
    let sent = 0;
    for (let bit = 0; bit < 8 * 72; bit++) {
      const message = request();
      message[9 + (bit >>> 3)]! ^= 1 << (bit & 7);
      put(message);
      sent++;
    }
    await judged(sent);
    expect(introduced).toEqual([]);
    expect(Object.keys(outcomes()).sort()).toEqual(["expired", "forged", "too_long"]);
  });

  test("counts before its second, and at most a day ahead of the clock", async () => {
    const { put, judged, outcomes, introduced, clock } = office(knowing(target));
    const at = async (expiryS: number): Promise<Partial<Record<GrantOutcome, number>>> => {
      const before = outcomes();
      const count = Object.values(before).reduce((a, b) => a + b, 0);
      put(request(target.grant(REQUESTER, expiryS)));
      await judged(count + 1);
      const after = outcomes();
      return Object.fromEntries(
        Object.entries(after)
          .map(([name, now]) => [name, now - (before[name as GrantOutcome] ?? 0)] as const)
          .filter(([, more]) => more !== 0),
      );
    };
    expect(await at(NOW_S + 1)).toEqual({ ok: 1 });
    expect(await at(NOW_S)).toEqual({ expired: 1 });
    expect(await at(0)).toEqual({ expired: 1 });
    expect(await at(NOW_S + GRANT_S_MAX)).toEqual({ ok: 1 });
    expect(await at(NOW_S + GRANT_S_MAX + 1)).toEqual({ too_long: 1 });
    clock.wallMs += 1000;
    expect(await at(NOW_S + 1)).toEqual({ expired: 1 });
    expect(await at(NOW_S + GRANT_S_MAX + 1)).toEqual({ ok: 1 });
    expect(introduced).toHaveLength(3);
  });

  test("of the far end of 64 bits is too long, and not even verified", () => {
    const keys = knowing(target);
    const { put, outcomes } = office(keys);
    for (const expiry of [2n ** 64n - 1n, 2n ** 63n, 2n ** 53n + 1n]) {
      const bytes = Buffer.alloc(72);
      bytes.writeBigUInt64BE(expiry);
      put(request(bytes));
    }
    expect([outcomes(), keys.asked]).toEqual([{ too_long: 3 }, []]);
  });

  test("of whatever bytes never is good, nor does it throw", async () => {
    const { put, judged, outcomes, introduced } = office(knowing(target));
    const expiry = fc.bigInt({ min: BigInt(NOW_S - 10), max: BigInt(NOW_S + 10) });
    const signature = fc.uint8Array({ minLength: 64, maxLength: 64 });
    let sent = 0;
    fc.assert(
      fc.property(expiry, signature, fc.nat(), (at, bytes, requesterId) => {
        put(request(withSignature(bytes, Number(at)), requesterId));
        sent++;
      }),
    );
    await judged(sent);
    expect([outcomes()["ok"], introduced]).toEqual([undefined, []]);
  });
});

describe("the target's key", () => {
  const told = (nodes: NodeTableOwner, { nodeId, publicKey }: NodeIdentity) => {
    nodes.record(nodeId, HOME, 0, 0, 1);
    expect(nodes.keepKey(nodeId, HOME, new DataView(publicKey.slice().buffer), 0)).toBe(KEY_KEPT);
  };

  test("is the node's own word where there is no source, or the source does not know the node", async () => {
    for (const source of [undefined, knowing(stranger)]) {
      const { nodes, put, judged, outcomes } = office(source);
      told(nodes, target);
      put(request());
      await judged(1);
      expect(outcomes()).toEqual({ ok: 1 });
    }
  });

  test("is the source's where it knows the node, whatever the node says", async () => {
    const impostor = stranger.as(target.nodeId);
    const { nodes, put, judged, outcomes } = office(knowing(target));
    told(nodes, impostor);
    put(request(impostor.grant(REQUESTER, NOW_S + 60)));
    put(request());
    await judged(2);
    expect(outcomes()).toEqual({ forged: 1, ok: 1 });
  });

  test("that nobody knows, or that is none, makes no grant good", async () => {
    const unknown = office(knowing(stranger));
    unknown.put(request());
    await unknown.judged(1);
    expect([unknown.outcomes(), unknown.introduced]).toEqual([{ unknown_key: 1 }, []]);
    for (const key of [
      new Uint8Array(31),
      new Uint8Array(0),
      new Uint8Array(32),
      new Uint8Array(33),
    ]) {
      const none = office(new Keys(async () => key));
      none.put(request());
      await none.judged(1);
      expect([none.outcomes(), none.introduced]).toEqual([{ bad_key: 1 }, []]);
    }
  });

  test("that cannot be had at the moment is not replaced by the node's own word; one warning a minute", async () => {
    const failing = new Keys(async () => {
      throw new KeySourceError("refused", "the registry is away: start it");
    });
    const { nodes, put, judged, outcomes, introduced, warnings, clock } = office(failing);
    told(nodes, target);
    put(request());
    put(request());
    await judged(2);
    expect([outcomes(), introduced]).toEqual([{ key_source: 2 }, []]);
    expect(warnings).toEqual([
      "punch requests are not served, as their targets' keys cannot be had: the registry is away: start it",
    ]);
    clock.nowMs += 60_000;
    put(request());
    await judged(3);
    expect(warnings).toHaveLength(2);
  });
});

describe("what it costs at most", () => {
  test("workers let through so many at once, and then so many a second", () => {
    const { memory } = office();
    const rate = new RateLimitOwner(memory, GRANT_RATE);
    const nowNs = 5e9;
    const ALL = 1_000_000;
    expect(rate.take(0, ALL, nowNs)).toBe(VERIFIED_BURST);
    expect(rate.take(0, ALL, nowNs)).toBe(0);
    expect(rate.take(0, ALL, nowNs + 1e8)).toBe(VERIFIED_PER_S / 10);
    // A pause of any length allows no more than the first burst.
    expect(rate.take(0, ALL, nowNs + 3.6e12)).toBe(VERIFIED_BURST);
  });

  test("a bounded number that wait for keys; once those come, others may", async () => {
    const { promise, resolve } = Promise.withResolvers<Uint8Array>();
    const { put, judged, outcomes } = office(new Keys(() => promise));
    let asked = 0;
    while (outcomes().overload === undefined) {
      put(request());
      if (++asked > 100_000) throw new Error("there is no bound");
    }
    expect(outcomes()).toEqual({ overload: 1 });
    resolve(target.publicKey);
    await judged(asked);
    expect(outcomes()).toEqual({ ok: asked - 1, overload: 1 });
    put(request());
    await judged(asked + 1);
    expect(outcomes()["ok"]).toBe(asked);
  });
});

describe("its life", () => {
  test("once it is stopped, nothing is sent or counted of what is still on its way", async () => {
    const { promise, resolve } = Promise.withResolvers<Uint8Array>();
    const keys = new Keys(() => promise);
    const { grants, put, outcomes, introduced } = office(keys);
    put(request());
    grants.stop();
    resolve(target.publicKey);
    const key = await crypto.subtle.importKey("raw", target.publicKey.slice(), "Ed25519", false, [
      "verify",
    ]);
    // Several of the same steps, one behind the other: by then the first one's are done.
    for (let i = 0; i < 10; i++)
      await crypto.subtle.verify("Ed25519", key, new Uint8Array(64), new Uint8Array());
    expect([introduced, outcomes()]).toEqual([[], {}]);
  });
});
