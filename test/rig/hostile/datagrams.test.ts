/** An attacker's packets, at a socket that takes them. */
import { afterEach, describe, expect, test } from "bun:test";
import type { Assault } from "../../../bench/rig/hostile/attack.ts";
import { Barrage, together } from "../../../bench/rig/hostile/barrage.ts";
import {
  headersBytes,
  numberOf,
  OwnSender,
  SpoofingSender,
} from "../../../bench/rig/hostile/datagrams.ts";
import { alternating, discovers, relays, upFrom } from "../../../bench/rig/hostile/messages.ts";
import { AF_INET } from "../../../ffi/abi.ts";
import { Client } from "../../e2e/support/client.ts";
import { until } from "../../e2e/support/wait.ts";
import { discover, relay } from "../../e2e/support/wire.ts";

const HOST = "127.0.0.1";
const NOBODY = { address: HOST, port: 9 };
const HEADERS_BYTES = headersBytes(AF_INET);
const isRoot = process.getuid?.() === 0;

const open: { close(): void }[] = [];
afterEach(() => {
  for (const each of open.splice(0)) each.close();
});

async function taker(): Promise<Client> {
  const client = await Client.open(HOST, NOBODY);
  open.push(client);
  return client;
}

/** Lets an attack go on until so much has arrived. */
async function during(assault: Assault, taker: Client, datagrams: number) {
  await until(`${datagrams} datagrams`, () => taker.pending >= datagrams);
  return assault.stop();
}

describe("from an attacker's own address", () => {
  test("they come in order, are counted with their headers, and answers are heard", async () => {
    const target = await taker();
    const write = alternating(discovers(upFrom(7)), relays(upFrom(1), upFrom(2), 3));
    const barrage = new Barrage(new OwnSender(HOST, target.address, 12, write), 2000);
    const first = await target.next();
    for (const type of [2, 2, 6]) await target.send(Uint8Array.of(type, 0), first.from);
    const effort = await during(barrage, target, 300);
    await until("all arrived", () => target.pending === effort.count - 1);
    const payload = new Uint8Array(3);
    const expected = Array.from({ length: effort.count }, (_, n) => {
      const i = Math.floor(n / 2);
      return Buffer.from(n % 2 === 0 ? discover(7 + i) : relay(1 + i, 2 + i, payload)).toString(
        "hex",
      );
    });
    const got = [first, ...target.take()];
    expect(got.map(({ bytes }) => Buffer.from(bytes).toString("hex"))).toEqual(expected);
    const bytes = got.reduce((sum, { bytes }) => sum + bytes.length + HEADERS_BYTES, 0);
    expect(effort).toMatchObject({ of: "packets", bytes, heard: { 2: 2, 6: 1 } });
  });
});

describe.skipIf(!isRoot)(`from other addresses${isRoot ? "" : " (needs root)"}`, () => {
  test("each comes from where it says, and several attacks are one", async () => {
    const target = await taker();
    const spoofed = (last: number) => {
      const source = (n: number) => ({
        address: numberOf(`127.1.${n % 3}.${last}`),
        port: 5000 + (n % 3),
      });
      return new Barrage(
        new SpoofingSender(source, target.address, 5, discovers(upFrom(100 * last))),
        1000,
      );
    };
    const effort = await during(together(spoofed(4), spoofed(5)), target, 100);
    await until("all arrived", () => target.pending === effort.count);
    const next = new Map<number, number>([
      [4, 0],
      [5, 0],
    ]);
    for (const { bytes, from } of target.take()) {
      const last = Number(from.address.split(".")[3]);
      const n = next.get(last)!;
      next.set(last, n + 1);
      expect({ bytes: Buffer.from(bytes), from }).toEqual({
        bytes: Buffer.from(discover(100 * last + n)),
        from: { address: `127.1.${n % 3}.${last}`, port: 5000 + (n % 3) },
      });
    }
    expect(effort).toEqual({
      of: "packets",
      count: effort.count,
      bytes: effort.count * (5 + HEADERS_BYTES),
      heard: {},
    });
  });
});
