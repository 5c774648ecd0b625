/**
 * The WebSocket bridge with TLS of its own: its certificates, also when they change while it runs,
 * and those that are no good.
 */
import { afterAll, afterEach, beforeAll, describe, expect, spyOn, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { join } from "node:path";
import { ListeningSocket } from "../../ffi/listening-socket.ts";
import type { Config } from "../../src/beacon.ts";
import { BridgeServer } from "../../src/control/bridge/server.ts";
import { readTlsFiles } from "../../src/control/kit/certificates.ts";
import { openFds } from "../support/fds.ts";
import { temporaryFolder } from "../support/folder.ts";
import { recordedLog } from "../support/log.ts";
import {
  type Certificate,
  makeCertificate,
  openssl,
  WebSocketClient,
} from "../support/websocket.ts";
import { BridgeBeacon, BridgedNode, KnownNodes } from "./support/bridged.ts";
import { installed, type LogLine, type Program, Programs } from "./support/program.ts";
import { inTime, until, untilEqual } from "./support/wait.ts";

const [ALICE, BOB, CAROL, DAVE] = [1, 2, 3, 4];
const nodes = new KnownNodes();
const hasOpenssl = installed("openssl");

describe.skipIf(!hasOpenssl)(`TLS${hasOpenssl ? "" : " (needs openssl)"}`, () => {
  const folder = temporaryFolder();
  let first: Certificate;
  let second: Certificate;
  beforeAll(() => {
    first = makeCertificate(folder, "first");
    second = makeCertificate(folder, "second", [
      "-algorithm",
      "RSA",
      "-pkeyopt",
      "rsa_keygen_bits:2048",
    ]);
    writeFileSync(join(folder, "keys.json"), nodes.file([ALICE, BOB, CAROL, DAVE]));
  });

  const optionsOf = ({ certPath, keyPath }: Certificate): Partial<Config> => ({
    wssTlsCert: certPath,
    wssTlsKey: keyPath,
  });

  async function expectRelays(from: BridgedNode, to: BridgedNode): Promise<void> {
    const payload = randomBytes(1200);
    from.relay(to.nodeId, payload);
    expect(await to.message()).toEqual({ type: "deliver", senderId: from.nodeId, payload });
  }

  const connectAs = (nodeId: number, url: URL | string, ca?: string) =>
    BridgedNode.connect(url, nodes.identity(nodeId), ca === undefined ? {} : { ca });

  /** @returns why it fails */
  async function failure(promise: Promise<unknown>): Promise<string> {
    const error = await inTime("it fails", promise).then(
      () => new Error("it does not fail"),
      (reason: Error) => reason,
    );
    expect(error.message).not.toMatch(/it does not fail|did not happen/);
    return error.message;
  }

  describe("from start to end", () => {
    let host: BridgeBeacon;
    let plain: BridgeBeacon;
    beforeAll(async () => {
      host = await BridgeBeacon.start(optionsOf(first), { nodes });
      plain = await BridgeBeacon.start({}, { nodes });
    });
    afterEach(() => Promise.all([host.leave(), plain.leave()]));
    afterAll(() => Promise.all([host.close(), plain.close()]));

    const secure = (nodeId: number) => host.bridged(nodeId, { ca: first.cert });

    async function expectWell(): Promise<void> {
      await expectRelays(await secure(ALICE), await secure(BOB));
      await expectRelays(await plain.bridged(ALICE), await plain.bridged(BOB));
    }

    test("nodes relay to each other and by UDP", async () => {
      expect(host.url.protocol).toBe("wss:");
      const [alice, bob, carol] = [await secure(ALICE), await secure(BOB), await host.udp(CAROL)];
      await expectRelays(alice, bob);
      await expectRelays(bob, alice);
      const payload = new Uint8Array(randomBytes(1200));
      alice.relay(CAROL, payload);
      expect(await carol.message()).toEqual({ type: "deliver", senderId: ALICE, payload });
      await carol.relay(CAROL, ALICE, payload);
      expect(await alice.message()).toEqual({
        type: "deliver",
        senderId: CAROL,
        payload: Buffer.from(payload),
      });
    });

    test("frames of all sizes arrive whole and in order", async () => {
      const [alice, bob] = [await secure(ALICE), await secure(BOB)];
      const payloads = [0, 1, 16_375, 16_384, 65_527, 1200, 65_527].map((bytes) =>
        randomBytes(bytes),
      );
      for (const payload of payloads) alice.relay(BOB, payload);
      for (const payload of payloads)
        expect(await bob.message()).toEqual({ type: "deliver", senderId: ALICE, payload });
    });

    test("who does not trust the certificate is not let down to no certificate", async () => {
      await failure(connectAs(ALICE, host.url, second.cert));
      await failure(connectAs(ALICE, host.url));
      expect(host.stats.connections).toBe(0);
    });

    test("a plain client on the TLS port, and a TLS client on the plain one, get nowhere", async () => {
      const other = (url: URL, scheme: string) => url.href.replace(/^wss?:/, scheme);
      await failure(WebSocketClient.open(other(host.url, "ws:")));
      await failure(WebSocketClient.open(other(plain.url, "wss:"), { ca: first.cert }));
      expect(host.stats).toMatchObject({ connections: 0 });
      expect(plain.stats).toMatchObject({ connections: 0 });
      await expectWell();
    });

    test("whatever is sent in place of a handshake is answered by an alert at most", async () => {
      for (const bytes of [
        Buffer.from("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"),
        randomBytes(300),
        Buffer.from("16030100050100000100", "hex"), // a hello cut short
        Buffer.from("1603ffffff", "hex"),
        Buffer.from("15030100020228", "hex"), // an alert
      ]) {
        const socket = connect(Number(host.url.port), "127.0.0.1");
        let answer = Buffer.alloc(0);
        socket.on("data", (chunk: Buffer) => {
          answer = Buffer.concat([answer, chunk]);
        });
        socket.on("error", () => {});
        socket.end(bytes);
        await inTime("the connection ends", new Promise((resolve) => socket.on("close", resolve)));
        expect(answer.length).toBeLessThan(20);
        expect(answer.toString("latin1")).not.toContain("HTTP");
      }
      await expectWell();
    });

    test("connections that vanish within the handshake leave nothing behind", async () => {
      await expectWell();
      await Promise.all([host.leave(), plain.leave()]);
      const before = openFds();
      for (let i = 0; i < 50; i++) {
        const socket = connect(Number(host.url.port), "127.0.0.1");
        socket.on("error", () => {});
        await once(socket, "connect");
        // The beginning of a hello, or nothing.
        if (i % 2 === 0) socket.write(Buffer.from("16030100c8010000c40303", "hex"));
        socket[i % 3 === 0 ? "resetAndDestroy" : "destroy"]();
      }
      for (let i = 0; i < 50; i++) (await secure(ALICE)).connection.destroy();
      await untilEqual("connections", () => host.stats.connections, 0);
      await until("files are closed", () => openFds().size <= before.size);
      await expectWell();
    });
  });

  describe("another certificate while it runs", () => {
    const hosts: BridgeBeacon[] = [];
    afterEach(async () => {
      for (const host of hosts.splice(0)) await host.close();
    });

    async function start(options: Partial<Config>): Promise<BridgeBeacon> {
      const host = await BridgeBeacon.start(options, { nodes });
      hosts.push(host);
      return host;
    }

    const change = (host: BridgeBeacon, certificate?: Certificate) =>
      host.beacon.reconfigure({
        ...host.beacon.config,
        ...(certificate ? optionsOf(certificate) : { wssTlsCert: "off", wssTlsKey: "off" }),
      });

    test("keeps the port, also one that the kernel chose", async () => {
      const host = await start(optionsOf(first));
      const { port } = host.url;
      change(host, second);
      expect(host.url.port).toBe(port);
      change(host);
      expect(host.url).toMatchObject({ port, protocol: "ws:" });
    });

    test("old connections relay on, with each other and with new ones, and end when the beacon does", async () => {
      const host = await start({ ...optionsOf(first), wss: `127.0.0.1:${await freePort()}` });
      const alice = await host.bridged(ALICE, { ca: first.cert });
      change(host, second);
      const bob = await host.bridged(BOB, { ca: second.cert });
      change(host);
      const carol = await host.bridged(CAROL);
      for (const from of [alice, bob, carol])
        for (const to of [alice, bob, carol]) if (from !== to) await expectRelays(from, to);
      expect(host.stats).toMatchObject({ peers: 3, connections: 3 });
      // And they are replaced, as any other.
      const again = await host.bridged(ALICE);
      expect(await alice.connection.closed).toEqual({ code: 1000, reason: "replaced" });
      await host.beacon.close();
      for (const { connection } of [again, bob, carol])
        expect(await inTime("the connection ends", connection.closed)).toEqual({
          code: 1001,
          reason: "going away",
        });
    });

    test("the same files with the same content: nothing is changed", async () => {
      const { log, lines } = recordedLog("trace");
      const host = await BridgeBeacon.start(optionsOf(first), { nodes, log });
      hosts.push(host);
      const [told, { href }] = [lines.length, host.url];
      for (let i = 0; i < 20; i++) change(host, first);
      expect(host.url.href).toBe(href);
      expect(lines.slice(told)).toEqual([]);
      const node = await host.bridged(ALICE, { ca: first.cert });
      expect(node.connection.protocol).toBe("pilot.v1");
      change(host, second);
      expect(lines.slice(told).map(({ msg }) => msg)).toEqual([
        expect.stringContaining("another certificate"),
      ]);
    });

    test("changed a hundred times: nothing of the old ones is left, once their connections are gone", async () => {
      const host = await start({ ...optionsOf(first), wss: `127.0.0.1:${await freePort()}` });
      const before = openFds();
      const old = await host.bridged(ALICE, { ca: first.cert });
      for (let i = 0; i < 100; i++) {
        change(host, i % 2 === 0 ? second : first);
        if (i % 10 === 0) {
          const bob = await host.bridged(BOB, { ca: second.cert });
          await expectRelays(old, bob);
        }
      }
      await host.leave();
      await until("files are closed", () => openFds().size <= before.size);
    });

    test("requests that are under way at that moment do no harm", async () => {
      const host = await start({ wss: `127.0.0.1:${await freePort()}` });
      const half = connect(Number(host.url.port), "127.0.0.1");
      half.on("error", () => {});
      half.write("GET /v1/compat HT");
      const challenged = await WebSocketClient.open(host.url);
      const { payload: challenge } = await challenged.next();
      change(host, first);
      challenged.text(nodes.identity(ALICE).reply(challenge.toString()));
      expect((await challenged.next()).payload.toString()).toBe('{"type":"auth_ok"}');
      const bob = await host.bridged(BOB, { ca: first.cert });
      bob.relay(ALICE, Buffer.of(1));
      expect((await challenged.next()).payload.length).toBe(6);
      half.destroy();
      challenged.destroy();
    });
  });

  describe("as a program", () => {
    const programs = new Programs();
    afterAll(() => programs.kill());

    /** What no output may show: the lines of a file. */
    function expectNothingOf(paths: readonly string[], output: string): void {
      for (const path of paths) {
        let lines: string[] = [];
        try {
          lines = readFileSync(path, "latin1").split("\n");
        } catch {} // it is not there, or no file
        for (const line of lines) if (line.length > 12) expect(output).not.toContain(line);
      }
    }

    /**
     * Files that are no good, by what is wrong: what stands in them, and which of the two is to
     * blame.
     */
    const broken: Record<
      string,
      { cert?: () => string | Uint8Array; key?: () => string | Uint8Array }
    > = {
      "an empty certificate": { cert: () => "" },
      "a certificate that is random": { cert: () => randomBytes(800) },
      "a certificate cut short": { cert: () => first.cert.slice(0, 300) },
      "a certificate in DER": { cert: () => der },
      "a key in place of the certificate": { cert: () => readFileSync(first.keyPath) },
      "a chain whose second certificate is cut short": {
        cert: () => first.cert + second.cert.slice(0, 300),
      },
      "an empty key": { key: () => "" },
      "a key cut short": { key: () => readFileSync(first.keyPath).subarray(0, 120) },
      "a key with a password": { key: () => encrypted },
      "the key of another certificate": { key: () => readFileSync(second.keyPath) },
      "a certificate in place of the key": { key: () => first.cert },
    };
    let der: Uint8Array;
    let encrypted: Uint8Array;
    beforeAll(() => {
      const [derPath, encryptedPath] = [join(folder, "der"), join(folder, "encrypted")];
      openssl("x509", "-in", first.certPath, "-outform", "der", "-out", derPath);
      openssl(
        ..."pkcs8 -topk8 -passout pass:secret -in".split(" "),
        first.keyPath,
        "-out",
        encryptedPath,
      );
      [der, encrypted] = [readFileSync(derPath), readFileSync(encryptedPath)];
    });

    const FLAGS = [
      "--addr=127.0.0.1:0",
      "--http=off",
      "--log-format=json",
      "--workers=1",
      "--max-nodes=1000",
    ];
    const withFiles = (certPath: string, keyPath: string) => [
      ...FLAGS,
      "--wss=127.0.0.1:0",
      `--wss-keys=${join(folder, "keys.json")}`,
      `--wss-tls-cert=${certPath}`,
      `--wss-tls-key=${keyPath}`,
    ];

    describe("does not start with files that are no good: exit code 2, and a message that names the file", () => {
      const started = new Map<string, { program: Program; paths: string[]; culprit: string }>();

      const start = (name: string, certPath: string, keyPath: string, culprit: string) => {
        const program = programs.beacon(withFiles(certPath, keyPath));
        started.set(name, { program, paths: [certPath, keyPath], culprit });
      };

      // All at once: each takes its time to start.
      beforeAll(() => {
        for (const [i, [name, { cert, key }]] of Object.entries(broken).entries()) {
          const [certPath, keyPath] = [join(folder, `bad-${i}.crt`), join(folder, `bad-${i}.key`)];
          writeFileSync(certPath, cert?.() ?? first.cert);
          writeFileSync(keyPath, key?.() ?? readFileSync(first.keyPath));
          start(name, certPath, keyPath, cert ? certPath : keyPath);
        }
        const absent = join(folder, "absent.pem");
        const directory = join(folder, "directory");
        mkdirSync(directory);
        start("no certificate", absent, first.keyPath, absent);
        start("no key", first.certPath, absent, absent);
        start("a folder for a certificate", directory, first.keyPath, directory);
        start("a folder for a key", first.certPath, directory, directory);
      });

      test.each([
        ...Object.keys(broken),
        "no certificate",
        "no key",
        "a folder for a certificate",
        "a folder for a key",
      ])("%s", async (name) => {
        const { program, paths, culprit } = started.get(name)!;
        const code = await program.exited();
        const fatal = program.log().filter(({ level }) => level === "fatal");
        expect(fatal.map(({ msg }) => msg)).toEqual([expect.stringContaining(culprit)]);
        expect(program.log().filter(({ msg }) => /listens/.test(msg))).toEqual([]);
        expectNothingOf(paths, program.output());
        expect(code).toBe(2);
      });
    });

    describe("reads its files again on SIGHUP", () => {
      const config = join(folder, "beacon.json");
      const [certPath, keyPath] = [join(folder, "in-force.crt"), join(folder, "in-force.key")];
      let program: Program;
      let url: string;
      const open: BridgedNode[] = [];
      afterEach(async () => {
        for (const { connection } of open.splice(0)) connection.destroy();
        install(first);
        configure(port, true);
        await reload();
      });

      const install = (certificate: Certificate) => {
        copyFileSync(certificate.certPath, certPath);
        copyFileSync(certificate.keyPath, keyPath);
      };
      const configure = (port: number, tls: boolean) =>
        writeFileSync(
          config,
          JSON.stringify({
            wss: `127.0.0.1:${port}`,
            "wss-keys": join(folder, "keys.json"),
            ...(tls ? { "wss-tls-cert": certPath, "wss-tls-key": keyPath } : {}),
          }),
        );

      async function reload(): Promise<LogLine> {
        const from = program.lines.length;
        program.signal("SIGHUP");
        return program.logged(/^configuration (not )?reloaded/, from);
      }

      async function connected(nodeId: number, ca?: string, to = url): Promise<BridgedNode> {
        const node = await connectAs(nodeId, to, ca);
        open.push(node);
        return node;
      }

      let port = 0;
      beforeAll(async () => {
        port = await freePort();
        install(first);
        configure(port, true);
        program = programs.beacon([...FLAGS, `--config=${config}`]);
        url = (await program.listening()).line["wss"] as string;
        expect(url).toBe(`wss://127.0.0.1:${port}/v1/compat`);
      });

      test("another certificate in the same files: new connections see it, old ones stay", async () => {
        const alice = await connected(ALICE, first.cert);
        install(second);
        await failure(connectAs(BOB, url, second.cert)); // nothing happens of itself
        expect((await reload()).level).toBe("info");
        await failure(connectAs(BOB, url, first.cert));
        const bob = await connected(BOB, second.cert);
        await expectRelays(alice, bob);
        await expectRelays(bob, alice);
        install(first);
        await reload();
        const carol = await connected(CAROL, first.cert);
        for (const old of [alice, bob]) await expectRelays(old, carol);
      });

      test.each(Object.entries(broken))(
        "%s: told, and the old one stays",
        async (_, { cert, key }) => {
          const alice = await connected(ALICE, first.cert);
          if (cert) writeFileSync(certPath, cert());
          if (key) writeFileSync(keyPath, key());
          const from = program.lines.length;
          const { level, msg } = await reload();
          expect(level).toBe("error");
          expect(msg).toStartWith("configuration not reloaded, the one in force stays: ");
          expect(msg).toContain(cert ? certPath : keyPath);
          expectNothingOf([certPath, keyPath], program.lines.slice(from).join("\n"));
          const bob = await connected(BOB, first.cert);
          await expectRelays(alice, bob);
          install(second);
          expect((await reload()).level).toBe("info");
          await expectRelays(await connected(CAROL, second.cert), alice);
        },
      );

      test("files that are gone: told, and the old one stays", async () => {
        for (const path of [certPath, keyPath]) {
          rmSync(path);
          expect(await reload()).toMatchObject({
            level: "error",
            msg: expect.stringContaining(path),
          });
          install(first);
        }
        await connected(ALICE, first.cert);
      });

      test("from TLS to plain and back: old connections stay, new ones are as the configuration says", async () => {
        const plainUrl = url.replace("wss:", "ws:");
        const alice = await connected(ALICE, first.cert);
        configure(port, false);
        await reload();
        await failure(connectAs(BOB, url, first.cert));
        const bob = await connected(BOB, undefined, plainUrl);
        await expectRelays(alice, bob);
        configure(port, true);
        await reload();
        await failure(connectAs(CAROL, plainUrl));
        const carol = await connected(CAROL, first.cert);
        for (const old of [alice, bob]) await expectRelays(carol, old);
      });
    });
  });

  describe("a server that cannot be started while another certificate is put in force", () => {
    const { log, lines } = recordedLog("trace");
    const tlsOf = ({ certPath, keyPath }: Certificate) => readTlsFiles(certPath, keyPath);
    let socket: ListeningSocket;
    let server: BridgeServer;
    afterEach(async () => {
      await server.stop();
      socket.close();
    });

    async function open(): Promise<BridgeServer> {
      lines.length = 0;
      socket = ListeningSocket.open("127.0.0.1", 0);
      server = new BridgeServer(
        socket,
        "127.0.0.1",
        { trustedProxies: [], tls: undefined },
        log,
        () => undefined,
        { message: () => {} },
      );
      return server;
    }

    /** Lets so many attempts to start a server fail. */
    function taken(times: number): { mockRestore(): void } {
      const serve = spyOn(Bun, "serve");
      for (let i = 0; i < times; i++)
        serve.mockImplementationOnce(() => {
          throw Object.assign(new Error("no file is left"), { code: "EMFILE" });
        });
      return serve;
    }

    const health = async (ca: string) => {
      const { port } = server.url;
      return (
        await fetch(`https://127.0.0.1:${port}/health`, { tls: { ca }, keepalive: false })
      ).text();
    };

    test("is tried again until it starts, and the old one serves meanwhile; the log has one error and its end", async () => {
      const { url } = await open();
      const serve = taken(3);
      try {
        server.reconfigure({ trustedProxies: [], tls: tlsOf(first) });
        server.tick(false);
        server.tick(false);
        await failure(health(first.cert));
        expect(lines.map(({ level }) => level)).toEqual(["error"]);
        expect(lines[0]!.msg).toContain(
          `cannot listen again on port ${url.port} (no file is left)`,
        );
        const plain = await fetch(`http://127.0.0.1:${url.port}/health`, { keepalive: false });
        expect(await plain.text()).toBe("ok\n");
        server.tick(false);
        expect(await health(first.cert)).toBe("ok\n");
        expect(server.url.port).toBe(url.port);
        expect(lines.map(({ level }) => level)).toEqual(["error", "info"]);
        server.tick(false);
        expect(serve).toHaveBeenCalledTimes(4);
      } finally {
        serve.mockRestore();
      }
    });

    test("another certificate meanwhile is the one that is served then", async () => {
      await open();
      const serve = taken(2);
      try {
        server.reconfigure({ trustedProxies: [], tls: tlsOf(first) });
        server.reconfigure({ trustedProxies: [], tls: tlsOf(second) });
        server.tick(false);
        expect(await health(second.cert)).toBe("ok\n");
        await failure(health(first.cert));
      } finally {
        serve.mockRestore();
      }
    });

    test("or while nothing accepts: the port stays the beacon's, and who connects waits", async () => {
      const { port } = (await open()).url;
      server.tick(true);
      const thief = createServer((stolen) => stolen.destroy());
      try {
        const [error] = await Promise.all([
          once(thief, "error"),
          thief.listen(Number(port), "127.0.0.1"),
        ]);
        expect(error[0]).toMatchObject({ code: "EADDRINUSE" });
      } finally {
        thief.close();
      }
      const answer = fetch(`http://127.0.0.1:${port}/health`, { keepalive: false });
      await Bun.sleep(100);
      server.tick(false);
      expect(await (await answer).text()).toBe("ok\n");
    });

    test("where the system shows no event loop, it has a socket of its own, and changes as before", async () => {
      lines.length = 0;
      socket = ListeningSocket.open("127.0.0.1", 0);
      const { port } = socket;
      const options = { trustedProxies: [], tls: undefined };
      const untold = () => undefined;
      server = new BridgeServer(
        socket,
        "127.0.0.1",
        options,
        log,
        untold,
        { message: () => {} },
        untold,
      );
      expect([socket.isOpen, server.url.port]).toEqual([false, String(port)]);
      server.reconfigure({ trustedProxies: [], tls: tlsOf(first) });
      expect(await health(first.cert)).toBe("ok\n");
      server.tick(true);
      await failure(health(first.cert));
      server.tick(false);
      expect(await health(first.cert)).toBe("ok\n");
    });
  });
});

/** A TCP port of 127.0.0.1 that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
