/**
 * Hosts with several addresses: network namespaces with a cable between them, and a beacon with its
 * default options.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { connect, Namespace } from "../../bench/rig/namespace.ts";
import type { Stats } from "../../src/beacon.ts";
import { UNLIMITED_FLAGS } from "./support/beacon.ts";
import { installed, MAIN, type Program, Programs } from "./support/program.ts";
import { UdpAgent } from "./support/udp-agent.ts";
import { until, untilEqual } from "./support/wait.ts";
import { discover, relay } from "./support/wire.ts";

const AGENT = join(import.meta.dir, "support/udp-agent.ts");
const PORT = 9001;
/** A program that prints what its argument, a URL, answers. */
const FETCH = "process.stdout.write(await (await fetch(process.argv[1])).text())";
const why =
  process.getuid?.() !== 0 ? "needs root" : installed("ip") ? undefined : "needs ip of iproute2";
const title = (text: string) => `${text}${why === undefined ? "" : ` (${why})`}`;

/** A beacon's host and a client's, with these addresses on the beacon's side. */
class Hosts {
  readonly beacon: Namespace;
  readonly client: Namespace;
  readonly programs = new Programs();

  constructor(label: string, addresses: readonly string[]) {
    [this.beacon, this.client] = Namespace.createAll([`${label}b`, `${label}c`]) as [
      Namespace,
      Namespace,
    ];
    for (const namespace of [this.beacon, this.client]) namespace.ip("link set lo up");
    connect(
      {
        namespace: this.beacon,
        link: "eth0",
        addresses: addresses.filter((one) => !one.endsWith("/32")),
      },
      { namespace: this.client, link: "eth0", addresses: ["203.0.113.77/24", "2001:db8::77/64"] },
    );
    for (const one of addresses.filter((one) => one.endsWith("/32"))) this.addVip(one);
  }

  /**
   * Adds an address to the loopback interface, as behind a load balancer that keeps the destination
   * (DSR).
   */
  addVip(address: string): void {
    this.beacon.ip(`address add ${address} dev lo`);
    this.client.ip(`route add ${address} dev eth0`);
  }

  async start(flags: readonly string[] = []): Promise<Program> {
    const program = this.programs.spawn(
      this.beacon.exec(
        ...[process.execPath, MAIN, `--addr=:${PORT}`, "--http=127.0.0.1:0", "--log-format=json"],
        ...["--workers=2", ...UNLIMITED_FLAGS, ...flags],
      ),
    );
    await program.listening();
    return program;
  }

  /** A client of this host's, on a socket of its own. */
  agent(host: string, address: string, link?: string): UdpAgent {
    const program = this.programs.spawn(this.client.exec(process.execPath, AGENT), {
      stdin: "pipe",
    });
    return new UdpAgent(program, host, { address, port: PORT, ...(link && { link }) });
  }

  async close(): Promise<void> {
    await this.programs.kill();
    this.beacon.remove();
    this.client.remove();
  }
}

const V4 = "203.0.113.77";
const V6 = "2001:db8::77";

describe.skipIf(why !== undefined)(title("a beacon on a host with several addresses"), () => {
  let hosts: Hosts;
  const LINK_LOCAL = "fe80::b";
  const ADDRESSES = [
    "203.0.113.1/24",
    "203.0.113.2/24",
    "198.51.100.9/32",
    "2001:db8::1/64",
    "2001:db8::2/64",
  ];

  beforeAll(async () => {
    hosts = new Hosts("many", [...ADDRESSES, `${LINK_LOCAL}/64`]);
    hosts.client.ip("address add fe80::c/64 dev eth0 nodad");
    await hosts.start();
  });
  afterAll(() => hosts.close());

  const ENDS: readonly [name: string, host: string, address: string, link?: string][] = [
    ["the first IPv4 address", V4, "203.0.113.1"],
    ["the second IPv4 address", V4, "203.0.113.2"],
    ["a virtual address on lo", V4, "198.51.100.9"],
    ["the first IPv6 address", V6, "2001:db8::1"],
    ["the second IPv6 address", V6, "2001:db8::2"],
    ["a link-local address", "fe80::c", LINK_LOCAL, "eth0"],
  ];
  for (const [i, [name, host, address, link]] of ENDS.entries()) {
    test(`a node at ${name} is answered, and gets its relays, from there`, async () => {
      // A link-local address is bound with its interface, which "::" leaves open.
      const agent = hosts.agent(link ? "::" : host, address, link);
      const other = hosts.agent(V4, "203.0.113.1");
      await agent.send(discover(10 + i));
      expect((await agent.receive()).from).toEqual({ address, port: PORT });
      await other.send(discover(100 + i));
      expect((await other.receive()).from.address).toBe("203.0.113.1");
      await other.send(relay(100 + i, 10 + i, Uint8Array.of(1)));
      expect((await agent.receive()).from).toEqual({ address, port: PORT });
    });
  }
});

describe.skipIf(why !== undefined)(title("a host that gets another address"), () => {
  let hosts: Hosts;
  afterEach(() => hosts.close());

  test("answers from the new address, too, without a restart", async () => {
    hosts = new Hosts("grow", ["203.0.113.1/24", "2001:db8::1/64"]);
    await hosts.start();
    const first = hosts.agent(V4, "203.0.113.1");
    await first.send(discover(1));
    expect((await first.receive()).from.address).toBe("203.0.113.1");
    hosts.addVip("198.51.100.9/32");
    const second = hosts.agent(V4, "198.51.100.9");
    await until("the new address answers for itself", async () => {
      await second.send(discover(2));
      return (await second.receive()).from.address === "198.51.100.9";
    });
    await first.send(relay(1, 2, Uint8Array.of(1)));
    expect((await second.receive()).from.address).toBe("198.51.100.9");
    await second.send(relay(2, 1, Uint8Array.of(1)));
    expect((await first.receive()).from.address).toBe("203.0.113.1");
  });
});

describe.skipIf(why !== undefined)(
  title("beacons that know each other by their second addresses"),
  () => {
    const namespaces: Namespace[] = [];
    const programs = new Programs();
    afterAll(async () => {
      await programs.kill();
      for (const namespace of namespaces) namespace.remove();
    });

    test("accept each other's gossip, and relay through each other", async () => {
      const [a, b] = Namespace.createAll(["mesha", "meshb"]) as [Namespace, Namespace];
      namespaces.push(a, b);
      for (const namespace of namespaces) namespace.ip("link set lo up");
      connect(
        { namespace: a, link: "eth0", addresses: ["203.0.113.1/24", "203.0.113.2/24"] },
        { namespace: b, link: "eth0", addresses: ["203.0.113.3/24", "203.0.113.4/24"] },
      );
      const flags = [`--addr=:${PORT}`, "--http=127.0.0.1:0", "--log-format=json", "--workers=2"];
      const start = (namespace: Namespace, peer: string) =>
        programs.spawn(
          namespace.exec(
            ...[process.execPath, MAIN, ...flags, ...UNLIMITED_FLAGS, "--gossip-interval=200ms"],
            ...[`--peers=${peer}:${PORT}`, "--gossip-strict=on", "--self-check=off"],
          ),
        );
      const beacons = [
        [a, start(a, "203.0.113.4")],
        [b, start(b, "203.0.113.2")],
      ] as const;
      const stats = async ([namespace, program]: (typeof beacons)[number]): Promise<Stats> => {
        const { http } = await program.listening();
        const text = namespace.run([
          process.execPath,
          "-e",
          FETCH,
          new URL("api/stats", http).href,
        ]);
        return JSON.parse(text) as Stats;
      };
      for (const beacon of beacons)
        await until(
          "the peer was heard",
          async () => (await stats(beacon)).mesh.peers[0]!.gossipAgeS !== null,
        );
      const agents = programs.spawn(b.exec(process.execPath, AGENT), { stdin: "pipe" });
      const far = new UdpAgent(agents, "203.0.113.3", { address: "203.0.113.2", port: PORT });
      const near = new UdpAgent(
        programs.spawn(a.exec(process.execPath, AGENT), { stdin: "pipe" }),
        "203.0.113.1",
        { address: "203.0.113.4", port: PORT },
      );
      await far.send(discover(7));
      await far.receive();
      await near.send(discover(8));
      await near.receive();
      const routes = async () =>
        (await Promise.all(beacons.map(stats))).map(({ mesh }) => mesh.peers[0]!.routes);
      await untilEqual("routes", routes, [1, 1]);
      await far.send(relay(7, 8, Uint8Array.of(1)));
      expect((await near.receive()).from).toEqual({ address: "203.0.113.4", port: PORT });
      await near.send(relay(8, 7, Uint8Array.of(1)));
      expect((await far.receive()).from).toEqual({ address: "203.0.113.2", port: PORT });
    });
  },
);
