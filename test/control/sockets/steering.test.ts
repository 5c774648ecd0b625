import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { SOCKET_BY_FLOW } from "../../../ffi/bpf.ts";
import { steeringProgram } from "../../../src/control/sockets/steering.ts";
import { DISCOVER, DISCOVER_EX, PUNCH_REQUEST, RELAY } from "../../../src/protocol.ts";
import { nodeHash, shardOfHash } from "../../../src/shared/hash.ts";
import { interpret } from "../../support/bpf.ts";
import { Group } from "../../support/group.ts";
import { hex } from "../../support/kernel.ts";
import { Peer } from "../../support/peer.ts";

const SHARDS_MAX = 64;
const LENGTH_MAX = 32;

/** The socket that a datagram should go to, said without a program. */
function expected(datagram: Uint8Array, secret: number, shards: number): number {
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.length);
  const owner = (id: number): number => shardOfHash(nodeHash(id, secret), shards);
  switch (datagram[0]) {
    case DISCOVER:
    case DISCOVER_EX:
    case PUNCH_REQUEST: // one of 5 to 8 bytes is malformed, and whoever gets it drops it
      return datagram.length >= 5 ? owner(view.getInt32(1)) : SOCKET_BY_FLOW;
    default: // above all a Relay: what one sender sends must stay in order
      return SOCKET_BY_FLOW;
  }
}

const secrets = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const body = fc.uint8Array({ minLength: LENGTH_MAX, maxLength: LENGTH_MAX });

/** A datagram of one of the types that exist, or of any other. */
const datagrams = fc
  .tuple(
    fc.oneof(
      fc.nat(0x0f),
      fc.constantFrom(DISCOVER, DISCOVER_EX, PUNCH_REQUEST, RELAY),
      fc.nat(0xff),
    ),
    fc.nat(LENGTH_MAX),
    body,
  )
  .map(([type, length, bytes]) => {
    const datagram = bytes.slice(0, length);
    if (length > 0) datagram[0] = type;
    return datagram;
  });

describe("steeringProgram", () => {
  test("steers every length, type and number of shards as the table is sharded", () => {
    fc.assert(
      fc.property(secrets, body, (secret, bytes) => {
        for (let shards = 1; shards <= SHARDS_MAX; shards++) {
          const program = steeringProgram(secret, shards);
          for (let type = 0; type <= 0x0f; type++) {
            for (let length = 0; length <= LENGTH_MAX; length++) {
              const datagram = bytes.slice(0, length);
              if (length > 0) datagram[0] = type;
              const socket = interpret(program, datagram);
              if (socket !== expected(datagram, secret, shards)) {
                throw new Error(`${hex(datagram)} of ${shards} goes to ${socket}`);
              }
            }
          }
        }
      }),
      { numRuns: 10 },
    );
  });

  test("steers random datagrams", () => {
    fc.assert(
      fc.property(
        secrets,
        fc.integer({ min: 1, max: SHARDS_MAX }),
        datagrams,
        (secret, shards, datagram) => {
          expect(interpret(steeringProgram(secret, shards), datagram)).toBe(
            expected(datagram, secret, shards),
          );
        },
      ),
      { numRuns: 5000 },
    );
  });

  test("names every shard and none besides", () => {
    for (const shards of [1, 2, 3, 7, 64]) {
      const program = steeringProgram(0x1234_5678, shards);
      const seen = new Set<number>();
      const datagram = new Uint8Array(5);
      datagram[0] = DISCOVER;
      for (let id = 1; id <= 4096; id++) {
        new DataView(datagram.buffer).setUint32(1, id);
        seen.add(interpret(program, datagram));
      }
      expect([...seen].sort((a, b) => a - b)).toEqual(
        Array.from({ length: shards }, (_, shard) => shard),
      );
    }
  });

  test("the kernel steers as the interpreter does", () => {
    const shards = 4;
    const group = new Group(shards);
    const peer = new Peer();
    fc.assert(
      fc.property(secrets, fc.array(datagrams, { minLength: 1, maxLength: 32 }), (secret, sent) => {
        const program = steeringProgram(secret, shards);
        group.attach(program);
        for (const datagram of sent) peer.send(datagram, group.endpoint);
        const arrivals = group.take(sent.length);
        expect(arrivals.map(({ bytes }) => hex(bytes)).sort()).toEqual(sent.map(hex).sort());
        for (const { socket, bytes } of arrivals) {
          const steered = interpret(program, bytes);
          if (steered !== SOCKET_BY_FLOW)
            expect([hex(bytes), socket]).toEqual([hex(bytes), steered]);
        }
      }),
      { numRuns: 100 },
    );
    peer.close();
    group.close();
  });

  test("the kernel spreads by flow what is not steered", () => {
    const group = new Group(4);
    group.attach(steeringProgram(1, 4));
    const sources = Array.from({ length: 32 }, () => new Peer());
    for (const source of sources) source.send(new Uint8Array([RELAY, 0, 0, 0, 1]), group.endpoint);
    const sockets = new Set(group.take(sources.length).map(({ socket }) => socket));
    expect(sockets.size).toBeGreaterThan(1); // all of 32 flows at one socket is one case in 4^31
    for (const source of sources) source.close();
    group.close();
  });
});
