import { describe, expect, test } from "bun:test";
import { type Found, type Lookup, NameError } from "../../../src/control/kit/names.ts";
import { LOOKUPS_MAX, Resolver } from "../../../src/control/mesh/resolver.ts";
import { recordedLog, silentLog } from "../../support/log.ts";

/** A name server that answers when the test says so. */
class NameServer {
  /** Every question, in order. */
  readonly asked: string[] = [];
  readonly signals: (AbortSignal | undefined)[] = [];
  readonly #waiting: { resolve: (found: Found) => void; reject: (error: Error) => void }[] = [];

  readonly lookup: Lookup = (host, signal) => {
    this.asked.push(host);
    this.signals.push(signal);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  };

  /** Answers the oldest question. */
  answer(...addresses: string[]): void {
    this.answerWith({ addresses });
  }

  answerWith(found: Found): void {
    this.#waiting.shift()!.resolve(found);
  }

  fail(code: string): void {
    this.#waiting.shift()!.reject(new NameError(this.asked.at(-1)!, code));
  }
}

function resolver() {
  const { log, lines } = recordedLog("trace");
  const names = new NameServer();
  return { names, lines, resolver: new Resolver(log, names.lookup) };
}

const HOST = "beacon.example";

describe("Resolver", () => {
  test("an IP literal is its own address, and nobody is asked", async () => {
    const { names, lines, resolver: it } = resolver();
    for (const literal of ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"]) {
      expect(it.known(literal)).toEqual([literal]);
      await it.resolve(literal);
      expect(it.known(literal)).toEqual([literal]);
    }
    expect([names.asked, lines]).toEqual([[], []]);
  });

  test("knows a name's addresses once they are found, in their order, each once", async () => {
    const { names, lines, resolver: it } = resolver();
    expect(it.known(HOST)).toEqual([]);
    const resolved = it.resolve(HOST);
    expect(it.known(HOST)).toEqual([]);
    names.answer("2001:db8::1", "192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.1");
    await resolved;
    expect(it.known(HOST)).toEqual(["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
    expect(it.known("other.example")).toEqual([]);
    expect(lines).toEqual([]);
  });

  test("asks anew every time, and goes by the newest answer", async () => {
    const { names, resolver: it } = resolver();
    for (const address of ["192.0.2.1", "192.0.2.2", "192.0.2.1"]) {
      const resolved = it.resolve(HOST);
      names.answer(address);
      await resolved;
      expect(it.known(HOST)).toEqual([address]);
    }
    expect(names.asked).toEqual([HOST, HOST, HOST]);
  });

  test("a failure keeps what was known; it is logged once, and so is that it is over", async () => {
    const { names, lines, resolver: it } = resolver();
    const resolve = async (answer: () => void) => {
      const resolved = it.resolve(HOST);
      answer();
      await resolved;
    };
    await resolve(() => names.answer("192.0.2.1"));
    for (let i = 0; i < 3; i++) {
      await resolve(() => names.fail("ENOTFOUND"));
      expect(it.known(HOST)).toEqual(["192.0.2.1"]);
    }
    expect(lines.map(({ level, host }) => ({ level, host }))).toEqual([
      { level: "warn", host: HOST },
    ]);
    expect(lines[0]!.msg).toBe(
      `no address for ${HOST} (ENOTFOUND): check the name and this host's DNS; it is tried again`,
    );
    await resolve(() => names.answer("192.0.2.2"));
    await resolve(() => names.answer("192.0.2.2"));
    expect(it.known(HOST)).toEqual(["192.0.2.2"]);
    expect(lines.slice(1).map(({ level, msg }) => ({ level, msg }))).toEqual([
      { level: "info", msg: "host name resolved again" },
    ]);
    await resolve(() => names.fail("ETIMEOUT"));
    expect(lines[2]!.msg).toContain("(ETIMEOUT)");
    expect(lines).toHaveLength(3);
  });

  test("names fail each for itself", async () => {
    const { names, lines, resolver: it } = resolver();
    const resolved = Promise.all(
      ["a.example", "b.example", "c.example"].map((host) => it.resolve(host)),
    );
    names.fail("EAI_AGAIN");
    names.answer("192.0.2.1");
    names.fail("ENOTFOUND");
    await resolved;
    expect(it.known("b.example")).toEqual(["192.0.2.1"]);
    expect(lines.map(({ host }) => host)).toEqual(["a.example", "c.example"]);
  });

  test("half an answer keeps the known addresses of the other family", async () => {
    const { names, resolver: it } = resolver();
    const answer = async (found: Found) => {
      const resolved = it.resolve(HOST);
      names.answerWith(found);
      return await resolved;
    };
    await answer({ addresses: ["192.0.2.1", "2001:db8::1"] });
    expect(await answer({ addresses: ["192.0.2.1"], unanswered: 6 })).toBe(false);
    expect(it.known(HOST)).toEqual(["192.0.2.1", "2001:db8::1"]);
    expect(await answer({ addresses: ["192.0.2.2"], unanswered: 6 })).toBe(true);
    expect(it.known(HOST)).toEqual(["192.0.2.2", "2001:db8::1"]);
    expect(await answer({ addresses: ["192.0.2.2"] })).toBe(true);
    expect(it.known(HOST)).toEqual(["192.0.2.2"]);
  });

  test("forgets the names that it is told to, and what it said of them", async () => {
    const { names, lines, resolver: it } = resolver();
    for (const host of ["a.example", "b.example"]) {
      const resolved = it.resolve(host);
      names.answer("192.0.2.1");
      await resolved;
    }
    const fail = async (host: string) => {
      const resolved = it.resolve(host);
      names.fail("ENOTFOUND");
      await resolved;
    };
    await fail("a.example");
    await fail("b.example");
    it.retain(new Set(["a.example", "c.example"]));
    expect([it.known("a.example"), it.known("b.example")]).toEqual([["192.0.2.1"], []]);
    await fail("a.example");
    await fail("b.example");
    expect(lines.map(({ host }) => host)).toEqual(["a.example", "b.example", "b.example"]);
  });

  test("a signal ends it: nothing has changed, nothing is logged", async () => {
    const { names, lines, resolver: it } = resolver();
    for (const end of [() => names.fail("ECANCELLED"), () => names.answer("192.0.2.1")]) {
      const stopping = new AbortController();
      const resolved = it.resolve(HOST, stopping.signal);
      expect(names.signals.at(-1)).toBe(stopping.signal);
      stopping.abort();
      end();
      expect(await resolved).toBe(false);
      expect([it.known(HOST), lines]).toEqual([[], []]);
    }
    expect(await it.resolve(HOST, AbortSignal.abort())).toBe(false);
    expect(names.asked).toEqual([HOST, HOST]);
  });

  test("the system's own name service knows this host", async () => {
    const { resolver: scripted } = resolver();
    expect(scripted.known("localhost")).toEqual([]);
    const it = new Resolver(silentLog);
    await it.resolve("localhost");
    expect(["127.0.0.1", "::1"]).toContain(it.known("localhost")[0]!);
  });
});

describe("many names", () => {
  const hosts = Array.from({ length: LOOKUPS_MAX + 8 }, (_, i) => `host${i}.example`);

  test("are few at once, and each gets its turn", async () => {
    const { names, resolver: it } = resolver();
    const resolved = hosts.map((host) => it.resolve(host));
    expect(names.asked).toEqual(hosts.slice(0, LOOKUPS_MAX));
    for (let i = 0; i < 8; i++) {
      if (i % 2 === 0) names.answer("192.0.2.1");
      else names.fail("ETIMEOUT");
      await resolved[i];
      await Promise.resolve(); // the next one's turn
      expect(names.asked).toHaveLength(LOOKUPS_MAX + i + 1);
    }
    for (let i = 0; i < LOOKUPS_MAX; i++) names.answer("192.0.2.1");
    await Promise.all(resolved);
    expect(names.asked).toEqual(hosts);
    expect(it.known(hosts.at(-1)!)).toEqual(["192.0.2.1"]);
  });

  test("that wait when the signal comes are not looked up", async () => {
    const { names, lines, resolver: it } = resolver();
    const stopping = new AbortController();
    const resolved = hosts.map((host) => it.resolve(host, stopping.signal));
    stopping.abort();
    for (let i = 0; i < LOOKUPS_MAX; i++) names.fail("ECANCELLED");
    expect(await Promise.all(resolved)).toEqual(hosts.map(() => false));
    expect(names.asked).toHaveLength(LOOKUPS_MAX);
    expect(lines).toEqual([]);
  });
});
