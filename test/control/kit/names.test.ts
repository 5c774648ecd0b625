/** Name look-ups against a real DNS server on loopback, and connections by name. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { once } from "node:events";
import { rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { connectTo, lookupName, NameError } from "../../../src/control/kit/names.ts";
import { inTime, until } from "../../e2e/support/wait.ts";
import { openFds } from "../../support/fds.ts";
import { temporaryFolder } from "../../support/folder.ts";
import { NameServer } from "../../support/name-server.ts";

const HOST = "beacon.example";
const folder = temporaryFolder();
const [hostsFile, resolvFile] = [join(folder, "hosts"), join(folder, "resolv.conf")];

let server: NameServer;
beforeEach(async () => {
  server = await NameServer.listen();
  writeFileSync(hostsFile, "127.0.0.1 localhost\n");
  writeFileSync(resolvFile, "search\n");
});
afterEach(() => server.close());

const look = (host: string, signal?: AbortSignal) =>
  lookupName(host, signal, { hostsFile, resolvFile, servers: [server.at] });

async function failure(host: string, signal?: AbortSignal): Promise<NameError> {
  const error = await look(host, signal).then(
    () => new Error("it does not fail"),
    (reason) => reason as Error,
  );
  expect(error).toBeInstanceOf(NameError);
  return error as NameError;
}

describe("a look-up", () => {
  test("returns an address as it is, and asks no server", async () => {
    for (const address of ["192.0.2.1", "2001:db8::1"])
      expect(await look(address)).toEqual({ addresses: [address] });
    expect(server.asked).toEqual([]);
  });

  test("asks for both families; IPv6 is first only where this host has an address of that scope", async () => {
    server.hosts.set(HOST, ["192.0.2.2", "192.0.2.1", "2001:db8::1", "192.0.2.2"]);
    const own = Object.values(networkInterfaces()).flatMap((all = []) =>
      all.map(({ address }) => address),
    );
    const hasGlobal = own.some((address) => /^[23][\da-f]{3}:/.test(address));
    const v4 = ["192.0.2.2", "192.0.2.1"];
    const addresses = hasGlobal ? ["2001:db8::1", ...v4] : [...v4, "2001:db8::1"];
    expect(await look(HOST)).toEqual({ addresses });
    expect(server.asked.toSorted()).toEqual([`A ${HOST}`, `AAAA ${HOST}`]);
  });

  test("asks anew each time, whatever the answer's time to live", async () => {
    for (const address of ["192.0.2.1", "192.0.2.2"]) {
      server.hosts.set(HOST, [address]);
      expect(await look(HOST)).toEqual({ addresses: [address] });
    }
  });

  test("reads the hosts file first, each time, in any case of letters and without comments", async () => {
    server.hosts.set("other", ["192.0.2.9"]);
    writeFileSync(
      hostsFile,
      `# 192.0.2.7 beacon\n192.0.2.1\tnode Beacon # other\n\nnonsense beacon\nfe80::1%lo beacon\n192.0.2.2 BEACON`,
    );
    expect(await look("beaCon")).toEqual({ addresses: ["192.0.2.1", "192.0.2.2"] });
    expect(server.asked).toEqual([]);
    expect(await look("other")).toEqual({ addresses: ["192.0.2.9"] });
    writeFileSync(hostsFile, "192.0.2.3 beacon");
    expect(await look("beacon")).toEqual({ addresses: ["192.0.2.3"] });
  });

  test("answers localhost itself where the hosts file has none", async () => {
    rmSync(hostsFile);
    for (const name of ["localhost", "LOCALHOST", "any.localhost"])
      expect((await look(name)).addresses.toSorted()).toEqual(["127.0.0.1", "::1"]);
    expect(server.asked).toEqual([]);
  });

  test.each<[string, string, string[]]>([
    ["a", "search one.test two.test", ["a.one.test", "a.two.test", "a"]],
    ["a.b", "search one.test two.test", ["a.b", "a.b.one.test", "a.b.two.test"]],
    ["a.b", "search one.test\noptions timeout:9 ndots:2", ["a.b.one.test", "a.b"]],
    ["a", "search one.test\ndomain two.test", ["a.two.test", "a"]],
    ["a", "search one.test.\nsearch .", ["a"]],
  ])("of %j goes through the domains of %j", async (host, resolvConf, names) => {
    writeFileSync(resolvFile, `nameserver 127.0.0.1\n${resolvConf}\n`);
    expect((await failure(host)).code).toBe("ENOTFOUND");
    const asked = server.asked.filter((one) => one.startsWith("A ")).map((one) => one.slice(2));
    expect(asked).toEqual(names);
    server.hosts.set(names.at(-1)!, ["192.0.2.1"]);
    expect(await look(host)).toEqual({ addresses: ["192.0.2.1"] });
  });

  test("names the code of a name server that fails, and which host it was about", async () => {
    for (const [failing, code] of [
      ["SERVFAIL", "ESERVFAIL"],
      ["REFUSED", "EREFUSED"],
      ["NXDOMAIN", "ENOTFOUND"],
    ] as const) {
      server.failure = () => failing;
      expect(await failure(HOST)).toMatchObject({ host: HOST, code });
    }
    server.failure = () => undefined;
    server.hosts.set(HOST, []);
    expect(["ENODATA", "ENOTFOUND"]).toContain((await failure(HOST)).code); // Bun 1.4.5: the latter
    server.close();
    expect((await failure(HOST)).code).toBe("ECONNREFUSED");
    server = await NameServer.listen(); // for the hook
  });

  test("of which one family stays unanswered gives the other, and says so", async () => {
    server.hosts.set(HOST, ["192.0.2.1", "2001:db8::1"]);
    for (const failing of ["silent", "SERVFAIL"] as const) {
      server.failure = (_, type) => (type === "AAAA" ? failing : undefined);
      expect(await inTime("the answer", look(HOST))).toEqual({
        addresses: ["192.0.2.1"],
        unanswered: 6,
      });
    }
    server.failure = (_, type) => (type === "A" ? "silent" : undefined);
    expect(await look(HOST)).toEqual({ addresses: ["2001:db8::1"], unanswered: 4 });
  });

  test("goes on with the next name server when the first is silent", async () => {
    const silent = await NameServer.listen();
    silent.failure = () => "silent";
    server.hosts.set(HOST, ["192.0.2.1"]);
    const servers = [silent.at, server.at];
    expect(await lookupName(HOST, undefined, { hostsFile, resolvFile, servers })).toEqual({
      addresses: ["192.0.2.1"],
    });
    expect(silent.asked).not.toEqual([]);
    silent.close();
  });

  test("of a silent name server ends by itself after few questions, and leaves nothing open", async () => {
    writeFileSync(resolvFile, "search a.test b.test c.test d.test e.test\n");
    server.failure = () => "silent";
    const fds = openFds();
    expect((await failure("beacon")).code).toBe("ETIMEOUT");
    expect(server.asked.length).toBeLessThan(20);
    expect(openFds()).toEqual(fds);
  });

  test("ends with its signal, before or while it runs", async () => {
    server.failure = () => "silent";
    expect((await failure(HOST, AbortSignal.abort())).code).toBe("ECANCELLED");
    const ending = new AbortController();
    const failed = failure(HOST, ending.signal);
    await until("it asks", () => server.asked.length > 0);
    ending.abort();
    expect((await failed).code).toBe("ECANCELLED");
  });
});

describe("a connection by name", () => {
  let listener: Server;
  let port: number;
  beforeEach(async () => {
    listener = createServer((socket) => socket.end("hello"));
    listener.listen(0, "127.0.0.3");
    await once(listener, "listening");
    ({ port } = listener.address() as AddressInfo);
  });
  afterEach(() => listener.close());

  test("is made to the first of the addresses that takes it", async () => {
    const addresses = ["127.0.0.2", "::1", "127.0.0.3"];
    const socket = connectTo({ host: HOST, port }, undefined, async () => ({ addresses }));
    await once(socket, "connect");
    expect(socket.remoteAddress).toBe("127.0.0.3");
    socket.destroy();
  });

  test("fails as the last address does, or with the NameError", async () => {
    const refused = connectTo({ host: HOST, port }, undefined, async () => ({
      addresses: ["127.0.0.2"],
    }));
    const [error] = await once(refused, "error").catch((reason) => [reason]);
    expect(error.code).toBe("ECONNREFUSED");
    const nowhere = connectTo({ host: HOST, port }, undefined, async (host) => {
      throw new NameError(host, "ENOTFOUND");
    });
    const [unknown] = await once(nowhere, "error").catch((reason) => [reason]);
    expect(unknown).toBeInstanceOf(NameError);
  });

  test("that is destroyed ends the look-up", async () => {
    const { promise, resolve } = Promise.withResolvers<string>();
    const socket = connectTo({ host: HOST, port }, undefined, (_, signal) => {
      signal!.addEventListener("abort", () => resolve("ended"));
      return new Promise(() => {});
    });
    await Bun.sleep(0);
    socket.destroy();
    expect(await inTime("the look-up ends", promise)).toBe("ended");
  });
});
