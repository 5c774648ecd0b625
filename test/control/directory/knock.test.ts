/**
 * Servers that let nobody in, or are none: each is told from the others, and what to do about it.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import type { StoreOptions } from "../../../src/control/directory/store.ts";
import { installed } from "../../e2e/support/program.ts";
import { until } from "../../e2e/support/wait.ts";
import { temporaryFolder } from "../../support/folder.ts";
import {
  describeImplementations,
  freeTcpPort,
  type RedisServer,
  RedisServers,
} from "../../support/redis.ts";
import { type Certificate, makeCertificate } from "../../support/websocket.ts";
import { PREFIX, Stores, UNTRIMMED, whyNotConnected } from "./support.ts";

const PASSWORD = "p@:/?#[]% é\"'&+ s3cret";
const host = "127.0.0.1";
const hasOpenssl = installed("openssl");

test("nobody there, no such host", async () => {
  const nobody = await whyNotConnected({ host, port: freeTcpPort() });
  expect(nobody).toMatchObject({ failure: "unreachable" });
  expect(nobody.message).toContain("connection refused (ECONNREFUSED): is it running");
  const nowhere = await whyNotConnected({ host: "no-such-host.invalid", port: 6379 });
  expect(nowhere).toMatchObject({ failure: "unreachable" });
  expect(nowhere.message).toContain("no such host (");
});

describeImplementations((implementation) => {
  const servers = new RedisServers(implementation);
  const stores = new Stores();
  let open: RedisServer;
  let locked: RedisServer;
  beforeAll(async () => {
    open = await servers.start();
    locked = await servers.start({ password: PASSWORD });
    const rights = ["~{test}:*", "+@all", "-xadd"];
    for (const [user, ...rules] of [
      ["mute", ...rights],
      ["wide-eyed", "~*", "+@all"],
    ])
      await locked.command("ACL", "SETUSER", user!, "on", `>${PASSWORD}`, ...rules);
  });
  afterEach(() => stores.close());
  afterAll(() => servers.stop());

  test("the password, whatever is in it, and a user with it", async () => {
    for (const options of [{ password: PASSWORD }, { user: "wide-eyed", password: PASSWORD }]) {
      const store = await stores.connect(locked, options);
      await store.append(Uint8Array.of(1), UNTRIMMED);
    }
  });

  test("by a name, and by IPv6", async () => {
    const six = await servers.start({ host: "::1" });
    expect((await stores.connect(six)).server).toBe(`[::1]:${six.port}`);
    const named = await stores.connect({ host: "localhost", port: open.port });
    expect(named.server).toBe(`localhost:${open.port}`);
    await six.stop();
  });

  test("by a name with several addresses: at the first that takes connections, or with its reason", async () => {
    const named = { host: "redis.example", port: open.port };
    const addresses = ["127.0.0.9", "::1", "127.0.0.1"];
    const store = await stores.connect(named, { lookup: async () => ({ addresses }) });
    expect(store.server).toBe(`redis.example:${open.port}`);
    await store.append(Uint8Array.of(1), UNTRIMMED);
    const nobody = await whyNotConnected(named, {
      lookup: async () => ({ addresses: ["127.0.0.9", "::1"] }),
    });
    expect(nobody.message).toContain("connection refused (ECONNREFUSED)");
  });

  test("by a name that is looked up anew for each store", async () => {
    const elsewhere = await servers.start({ host: "127.0.0.2", port: open.port });
    const found = ["127.0.0.1", "127.0.0.2"];
    const lookup = async () => ({ addresses: [found.shift()!] });
    for (const server of [open, elsewhere]) {
      const store = await stores.connect({ host: "redis.example", port: open.port }, { lookup });
      await store.setBeacon("who", Uint8Array.of(1));
      expect(await server.command("HLEN", "{test}:beacons")).toBe(1);
    }
    expect(found).toEqual([]);
    await elsewhere.stop();
  });

  test.each<[string, Partial<StoreOptions>, string]>([
    ["none", {}, "name a file with the password in --directory-auth-file"],
    ["a wrong password", { password: "hunter2" }, "check --directory-auth-file"],
    [
      "a user that is not there",
      { user: "eve", password: PASSWORD },
      "check --directory-auth-file",
    ],
    [
      "a user without a right",
      { user: "mute", password: PASSWORD },
      "let the user do that (ACL SETUSER)",
    ],
  ])("%s", async (_, options, advice) => {
    const error = await whyNotConnected(locked, options);
    expect(error).toMatchObject({ failure: "denied", endsConnection: true });
    expect(error.message).toContain(advice);
    expect(error.message).not.toMatch(/hunter2|s3cret/);
  });

  test("a password that the server has not", async () => {
    const error = await whyNotConnected(open, { password: PASSWORD, user: "eve" });
    expect(error).toMatchObject({ failure: "denied" });
  });

  test("a database that is not there", async () => {
    const error = await whyNotConnected(open, { database: 16 });
    expect(error).toMatchObject({ failure: "refused" });
    expect(error.message).toContain("check the database in --directory");
  });

  test("no connection left, and one that stands still", async () => {
    const own = await servers.start();
    await own.command("CONFIG", "SET", "maxclients", "1");
    expect(await whyNotConnected(own)).toMatchObject({ failure: "slow" });
    own.pause();
    const error = await whyNotConnected(own, { connectMs: 300 });
    expect(error).toMatchObject({ failure: "slow" });
    expect(error.message).toContain("accepts the connection and does not answer");
    await own.stop();
  });

  test("a replica, before its primary and after; the primary, wherever it is named", async () => {
    const [primary, replica] = [await servers.start(), await servers.start()];
    await replica.replicaOf(primary);
    const error = await whyNotConnected(replica);
    expect(error).toMatchObject({ failure: "read_only" });
    expect(error.message).toContain(
      `directory ${replica.name}: is a replica: name the primary, too`,
    );
    for (const [named, first] of [
      [[replica, primary], 0],
      [[primary, replica], 0],
      [[primary, replica], 1],
      [[replica, primary], 7],
    ] as const) {
      const store = await stores.connect(named, {}, first);
      expect(store.server).toBe(primary.name);
    }
    await primary.stop();
    const both = await whyNotConnected([primary, replica]);
    expect(both).toMatchObject({ failure: "read_only" });
    expect(both.message).toMatch(/ECONNREFUSED.*; directory .*is a replica/);
    await replica.promote();
    expect((await stores.connect([primary, replica])).server).toBe(replica.name);
    await Promise.all([primary.stop(), replica.stop()]);
  });

  test("a Sentinel", async () => {
    const sentinel = await servers.start({ sentinel: true });
    const error = await whyNotConnected(sentinel);
    expect(error).toMatchObject({ failure: "refused" });
    expect(error.message).toContain("is a Sentinel: name the servers themselves in --directory");
    await sentinel.stop();
  });

  test("a cluster: of its nodes, the one that has the keys", async () => {
    const nodes = [
      await servers.start({ config: ["--cluster-enabled", "yes"] }),
      await servers.start({ config: ["--cluster-enabled", "yes"] }),
    ];
    // no slot is served yet
    expect(await whyNotConnected(nodes)).toMatchObject({ failure: "refused" });
    const slot = Number(await nodes[0]!.command("CLUSTER", "KEYSLOT", `{${PREFIX}}:log`));
    await nodes[0]!.command("CLUSTER", "ADDSLOTS", String(slot));
    await nodes[0]!.command("CLUSTER", "MEET", host, `${nodes[1]!.port}`);
    for (const node of nodes)
      await node.command("CONFIG", "SET", "cluster-require-full-coverage", "no");
    for (const node of nodes)
      await until("the cluster is up", async () =>
        /cluster_state:ok/.test(String(await node.command("CLUSTER", "INFO"))),
      );
    const wrong = await until("the other node knows whose the slot is", async () => {
      const error = await whyNotConnected(nodes[1]!);
      return /MOVED/.test(error.message) && error;
    });
    expect(wrong).toMatchObject({ failure: "refused", endsConnection: true });
    expect(wrong.message).toContain("name all nodes of the cluster in --directory");
    const store = await stores.connect([nodes[1]!, nodes[0]!]);
    expect(store.server).toBe(nodes[0]!.name);
    await store.append(Uint8Array.of(1), UNTRIMMED);
    expect(await store.read("0-0")).toHaveLength(1);
    expect((await whyNotConnected(nodes, { database: 1 })).message).toContain("check the database");
    await Promise.all(nodes.map((node) => node.stop()));
  });

  describe.skipIf(!hasOpenssl)(`and TLS${hasOpenssl ? "" : " (needs openssl)"}`, () => {
    const folder = temporaryFolder();
    let own: Certificate;
    let other: Certificate;
    let secure: RedisServer;
    beforeAll(async () => {
      own = makeCertificate(folder, "own", undefined, [host]);
      other = makeCertificate(folder, "other");
      secure = await servers.start({ tls: own, password: PASSWORD });
    });

    const withTls = (ca?: string) => ({ tls: true, ca, password: PASSWORD });

    test("who trusts the certificate gets in; among many, too", async () => {
      for (const ca of [own.cert, other.cert + own.cert]) {
        const store = await stores.connect(secure, withTls(ca));
        await store.putPart("p", new Uint8Array(100_000), 1000);
        expect(await store.getPart("p", 100_000)).toHaveLength(100_000);
      }
    });

    test("who does not, does not", async () => {
      for (const ca of [undefined, other.cert]) {
        const error = await whyNotConnected(secure, withTls(ca));
        expect(error).toMatchObject({ failure: "unreachable" });
        expect(error.message).toMatch(
          /its certificate is not trusted \(\w+\): .* --directory-ca-file/,
        );
      }
    });

    test("by its name, whatever the address, and by no other name", async () => {
      const certificate = makeCertificate(folder, "named", undefined, ["redis.example"]);
      const named = await servers.start({ tls: certificate });
      const lookup = async () => ({ addresses: ["127.0.0.1"] });
      const options = { tls: true, ca: certificate.cert, lookup };
      const store = await stores.connect({ host: "redis.example", port: named.port }, options);
      await store.append(Uint8Array.of(1), UNTRIMMED);
      for (const host of ["other.example", "127.0.0.1"]) {
        const error = await whyNotConnected({ host, port: named.port }, options);
        expect(error.message).toContain(
          "its certificate is for other names (ERR_TLS_CERT_ALTNAME_INVALID)",
        );
      }
    });

    test("nor by a name that is not the certificate's", async () => {
      const error = await whyNotConnected(
        { host: "localhost", port: secure.port },
        withTls(own.cert),
      );
      expect(error).toMatchObject({ failure: "unreachable" });
      expect(error.message).toContain(
        "its certificate is for other names (ERR_TLS_CERT_ALTNAME_INVALID)",
      );
    });

    test("without TLS to a port with it, and with it to a port without", async () => {
      const plain = await whyNotConnected(secure, { password: PASSWORD });
      expect(plain).toMatchObject({ failure: "unreachable" });
      expect(plain.message).toContain("does it want TLS? that is rediss://");
      const tls = await whyNotConnected(open, { ...withTls(own.cert), connectMs: 500 });
      expect(tls).toMatchObject({ failure: "slow" });
      expect(tls.message).toContain("does it speak TLS on that port? without it is redis://");
    });

    test("a server that wants a certificate of ours, and a CA that is none", async () => {
      const config = ["--tls-auth-clients", "yes"];
      const strict = await servers.start({ tls: own, config });
      const error = await whyNotConnected(strict, { tls: true, ca: own.cert });
      expect(error).toMatchObject({ failure: "unreachable" });
      expect(error.message).toContain("set its tls-auth-clients to no");
      await strict.stop();
      const noCa = await whyNotConnected(secure, withTls("no certificate"));
      expect(noCa.message).toContain("check --directory-ca-file");
    });

    test("a wrong password is told, and in no message", async () => {
      const error = await whyNotConnected(secure, { ...withTls(own.cert), password: "hunter2" });
      expect(error).toMatchObject({ failure: "denied" });
      expect(error.message).not.toContain("hunter2");
    });
  });
});
