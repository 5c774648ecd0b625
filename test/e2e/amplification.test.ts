/**
 * Bytes on the wire that a datagram makes a dual-stack beacon send, IP and UDP headers included:
 * measured for each message that it acts on, between all families, and compared with the table in
 * SECURITY.md.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Beacon } from "../../src/beacon.ts";
import { RELAY_BYTES } from "../../src/protocol.ts";
import { UNLIMITED } from "./support/beacon.ts";
import { type Client, Clients, type Datagram } from "./support/client.ts";
import { discover, punchRequest, relay } from "./support/wire.ts";

setDefaultTimeout(60_000);

const UDP_HEADER = 8;
const FAMILIES = ["IPv4", "IPv6"] as const;
type IP = (typeof FAMILIES)[number];
const HOST: Record<IP, string> = { IPv4: "127.0.0.1", IPv6: "::1" };
/** RFC 791 without options, RFC 8200. */
const IP_HEADER: Record<IP, number> = { IPv4: 20, IPv6: 40 };
/** An Ethernet frame is this long at least (IEEE 802.3), and has a head and a checksum. */
const FRAME_BYTES_MIN = 64;
const FRAME_BYTES_MORE = 14 + 4;
const EMPTY = new Uint8Array(0);
/**
 * Ids of the nodes that the tests register: the sender by Discover, the target by DiscoverEx, for
 * the longer delivery.
 */
const SENDER: Record<IP, number> = { IPv4: 14, IPv6: 16 };
const TARGET: Record<IP, number> = { IPv4: 24, IPv6: 26 };

const beacon = new Beacon({ addr: ":0", http: "off", workers: 1, maxNodes: 1000, ...UNLIMITED });
const clients = new Clients(() => beacon.address);
const senders = {} as Record<IP, Client>;
const targets = {} as Record<IP, Client>;

beforeAll(async () => {
  await beacon.listen();
  for (const family of FAMILIES) {
    senders[family] = await clients.open(HOST[family]);
    targets[family] = await clients.open(HOST[family]);
    await senders[family].discover(SENDER[family]);
    await targets[family].discoverEx(TARGET[family]);
  }
});
afterAll(async () => {
  clients.close();
  await beacon.close();
});

const onWire = (family: IP, bytes: number): number => IP_HEADER[family] + UDP_HEADER + bytes;
const size = (family: IP, { bytes }: Datagram): number => onWire(family, bytes.length);
const sum = (sizes: readonly number[]): number => sizes.reduce((total, bytes) => total + bytes);

/** A row of the table in SECURITY.md. */
interface Row {
  readonly message: string;
  readonly in: number;
  /** To each that the message makes the beacon send to. */
  readonly out: readonly number[];
}
const growth = (row: Row): number => sum(row.out) / row.in;

async function discoverRow(family: IP): Promise<Row> {
  const message = discover(SENDER[family]);
  await senders[family].send(message);
  const out = [size(family, await senders[family].next())];
  return { message: `Discover over ${family}`, in: onWire(family, message.length), out };
}

async function punchRow(from: IP, to: IP): Promise<Row> {
  const message = punchRequest(SENDER[from], TARGET[to]);
  await senders[from].send(message);
  const out = [size(from, await senders[from].next()), size(to, await targets[to].next())];
  return {
    message: `PunchRequest over ${from}, target on ${to}`,
    in: onWire(from, message.length),
    out,
  };
}

async function relayRow(from: IP, to: IP, payload = EMPTY): Promise<Row> {
  const message = relay(SENDER[from], TARGET[to], payload);
  await senders[from].send(message);
  const out = [size(to, await targets[to].next())];
  return {
    message: `empty Relay over ${from}, node on ${to}`,
    in: onWire(from, message.length),
    out,
  };
}

async function allRows(): Promise<Row[]> {
  const pairs = FAMILIES.flatMap((from) => FAMILIES.map((to) => [from, to] as const));
  const rows: Row[] = [];
  for (const family of FAMILIES) rows.push(await discoverRow(family));
  for (const [from, to] of pairs) rows.push(await punchRow(from, to));
  for (const [from, to] of pairs) rows.push(await relayRow(from, to));
  return rows;
}

/** The table under "Bytes out for bytes in" of SECURITY.md, its cells trimmed. */
function documented(): string[][] {
  const text = readFileSync(join(import.meta.dir, "../../SECURITY.md"), "utf8");
  const [, section = ""] = text.split("### Bytes out for bytes in\n");
  const lines = section.split("\n## ")[0]!.split("\n");
  const rows = lines.filter((line) => line.startsWith("|")).slice(2);
  return rows.map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

describe("what a datagram makes the beacon send", () => {
  test("is what SECURITY.md states, for every message and family", async () => {
    const rows = await allRows();
    expect(documented()).toEqual(
      rows.map((row) => [row.message, String(row.in), row.out.join(" + "), growth(row).toFixed(2)]),
    );
  });

  test("is at most 1.3 times as much where the answer goes to the address that the datagram came from", async () => {
    for (const family of FAMILIES)
      expect(growth(await discoverRow(family))).toBeLessThanOrEqual(1.3);
    for (const from of FAMILIES) {
      for (const to of FAMILIES) {
        const { in: bytes, out } = await punchRow(from, to);
        expect(out[0]! / bytes).toBeLessThanOrEqual(1.3);
      }
    }
  });

  test("is a Relay and 20 bytes at most, the difference of the IP headers, whatever its payload", async () => {
    for (const payloadBytes of [0, 1, 9, 30, 1200]) {
      const row = await relayRow("IPv4", "IPv6", new Uint8Array(payloadBytes));
      expect(sum(row.out) - row.in).toBe(IP_HEADER.IPv6 - IP_HEADER.IPv4);
      if (payloadBytes >= 30) expect(growth(row)).toBeLessThanOrEqual(1.3);
    }
  });

  test("is at most 84/64 of a Relay in Ethernet frames, which have a least size", () => {
    const frame = (family: IP, payloadBytes: number) =>
      Math.max(FRAME_BYTES_MIN, FRAME_BYTES_MORE + onWire(family, RELAY_BYTES + payloadBytes));
    const factors = Array.from(
      { length: 1400 },
      (_, bytes) => frame("IPv6", bytes) / frame("IPv4", bytes),
    );
    expect(Math.max(...factors)).toBe(84 / 64);
  });
});
