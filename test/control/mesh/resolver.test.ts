import { afterEach, describe, expect, mock, spyOn, test } from "bun:test";
import type { LookupAddress } from "node:dns";
import { getEventListeners } from "node:events";
import { createLogger } from "../../../src/control/log.ts";
import { Resolver } from "../../../src/control/mesh/resolver.ts";

/** A name server that answers when the test says so. */
class NameServer {
  /** Every question, in order. */
  readonly asked: string[] = [];
  readonly #waiting: { resolve: (found: LookupAddress[]) => void; reject: (error: Error) => void }[] = [];

  readonly lookup = (host: string): Promise<readonly LookupAddress[]> => {
    this.asked.push(host);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  };

  /** Answers the oldest question. */
  answer(...addresses: string[]): void {
    const family = (address: string) => (address.includes(":") ? 6 : 4);
    this.#waiting.shift()!.resolve(addresses.map((address) => ({ address, family: family(address) })));
  }

  fail(code?: string): void {
    const error = new Error("no luck");
    this.#waiting.shift()!.reject(code === undefined ? error : Object.assign(error, { code }));
  }
}

function resolver() {
  const lines: { level: string; msg: string; host: string }[] = [];
  const log = createLogger({
    level: "trace",
    format: "json",
    destination: { write: (line) => lines.push(JSON.parse(line)) },
  });
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
    expect(lines.map(({ level, host }) => ({ level, host }))).toEqual([{ level: "warn", host: HOST }]);
    expect(lines[0]!.msg).toBe(`no address for ${HOST} (ENOTFOUND): check the name; it is tried again`);
    await resolve(() => names.answer("192.0.2.2"));
    await resolve(() => names.answer("192.0.2.2"));
    expect(it.known(HOST)).toEqual(["192.0.2.2"]);
    expect(lines.slice(1).map(({ level, msg }) => ({ level, msg }))).toEqual([
      { level: "info", msg: "host name resolved again" },
    ]);
    await resolve(() => names.fail());
    expect(lines[2]!.msg).toContain("(no luck)");
    expect(lines).toHaveLength(3);
  });

  test("names fail each for itself", async () => {
    const { names, lines, resolver: it } = resolver();
    const resolved = Promise.all(["a.example", "b.example", "c.example"].map((host) => it.resolve(host)));
    names.fail("EAI_AGAIN");
    names.answer("192.0.2.1");
    names.fail("ENOTFOUND");
    await resolved;
    expect(it.known("b.example")).toEqual(["192.0.2.1"]);
    expect(lines.map(({ host }) => host)).toEqual(["a.example", "c.example"]);
  });

  test("who asks while a question is open gets the same answer", async () => {
    const { names, resolver: it } = resolver();
    const all = Promise.all([it.resolve(HOST), it.resolve(HOST), it.resolve(HOST)]);
    expect(names.asked).toEqual([HOST]);
    names.answer("192.0.2.1");
    await all;
    expect(it.known(HOST)).toEqual(["192.0.2.1"]);
    const again = it.resolve(HOST);
    expect(names.asked).toEqual([HOST, HOST]);
    names.answer("192.0.2.2");
    await again;
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

  test("a signal ends the wait: nothing has changed, nothing is said, nothing stays behind", async () => {
    const { names, lines, resolver: it } = resolver();
    const stopping = new AbortController();
    const resolved = it.resolve(HOST, stopping.signal);
    expect(getEventListeners(stopping.signal, "abort")).toHaveLength(1);
    stopping.abort();
    await resolved;
    expect(it.known(HOST)).toEqual([]);
    expect(lines).toEqual([]);
    expect(getEventListeners(stopping.signal, "abort")).toHaveLength(0);
    names.fail("ENOTFOUND"); // too late for anybody to hear
    await new Promise((resume) => setImmediate(resume));
    const next = new AbortController();
    const again = it.resolve(HOST, next.signal);
    names.answer("192.0.2.1");
    await again;
    expect(getEventListeners(next.signal, "abort")).toHaveLength(0);
    expect(it.known(HOST)).toEqual(["192.0.2.1"]);
    expect(lines).toEqual([]);
  });

  test("the system's own name service knows this host", async () => {
    const { resolver: scripted } = resolver();
    expect(scripted.known("localhost")).toEqual([]);
    const it = new Resolver(createLogger({ level: "silent", format: "json" }));
    await it.resolve("localhost");
    expect(["127.0.0.1", "::1"]).toContain(it.known("localhost")[0]!);
  });
});

describe("a name server that does not answer", () => {
  afterEach(() => {
    mock.restore();
  });

  /** Time limits that run out when the test says so. */
  function limits() {
    const running = new Map<number, () => void>();
    let timers = 0;
    spyOn(globalThis, "setTimeout").mockImplementation(((callback: () => void) => {
      running.set(++timers, callback);
      return timers;
    }) as unknown as typeof setTimeout);
    spyOn(globalThis, "clearTimeout").mockImplementation(((timer: number) => {
      running.delete(timer);
    }) as unknown as typeof clearTimeout);
    return {
      runOut: () => {
        for (const callback of [...running.values()]) callback();
      },
      get running() {
        return running.size;
      },
    };
  }

  test("counts as a failure, and is not asked a second time meanwhile", async () => {
    const time = limits();
    const { names, lines, resolver: it } = resolver();
    for (let i = 0; i < 3; i++) {
      const resolved = it.resolve(HOST);
      expect(time.running).toBe(1);
      time.runOut();
      await resolved;
      expect(time.running).toBe(0);
    }
    expect(names.asked).toEqual([HOST]);
    expect(lines.map(({ msg }) => msg)).toEqual([
      `no address for ${HOST} (the name server does not answer): check the name; it is tried again`,
    ]);
    // Who waits when the answer comes has it.
    const resolved = it.resolve(HOST);
    names.answer("192.0.2.1");
    await resolved;
    expect(names.asked).toEqual([HOST]);
    expect(it.known(HOST)).toEqual(["192.0.2.1"]);
    const again = it.resolve(HOST);
    expect(names.asked).toEqual([HOST, HOST]);
    names.answer("192.0.2.1");
    await again;
    expect(time.running).toBe(0);
  });

  test("holds up no other name, and what it says after all, when nobody waits, harms nobody", async () => {
    const time = limits();
    const { names, resolver: it } = resolver();
    const silent = it.resolve(HOST);
    time.runOut();
    await silent;
    names.fail("ETIMEOUT");
    await new Promise((resume) => setImmediate(resume));
    const other = it.resolve("other.example");
    names.answer("192.0.2.1");
    await other;
    expect(it.known("other.example")).toEqual(["192.0.2.1"]);
    expect(it.known(HOST)).toEqual([]);
    expect(names.asked).toEqual([HOST, "other.example"]);
  });
});
