import { afterAll, beforeEach, describe, expect, spyOn, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { ENDPOINT_PORT_MASK, endpointOf, isIPv4 } from "../../../ffi/endpoint.ts";
import {
  type LoadOptions,
  type LoadResult,
  StateFile,
  StateFileError,
} from "../../../src/control/nodes/state-file.ts";
import {
  GRANTS_REQUIRED,
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  SharedMemory,
} from "../../../src/shared/memory.ts";
import { ADDED, KEY_KEPT, KEY_REFUSED } from "../../../src/shared/nodes.ts";
import { type NodeEntry, NodeTableOwner } from "../../../src/shared/nodes-owner.ts";
import { WANTS_DEST } from "../../../src/shared/slots.ts";
import { anyEndpoint, nodeId } from "../../support/arbitraries.ts";
import { openFds } from "../../support/fds.ts";
import type { StateFileReport } from "../../support/state-file-process.ts";

const TTL_S = 600;
const WALL_MS = 1_700_000_000_123;
const HOME = endpointOf("192.0.2.1", 9001);
const AWAY = endpointOf("2001:db8::1", 4000);
/** Bytes that this process has read with system calls. */
const bytesRead = () => Number(/^rchar: (\d+)$/m.exec(readFileSync("/proc/self/io", "latin1"))![1]);

const CHILD = join(import.meta.dir, "../../support/state-file-process.ts");

const root = realpathSync(mkdtempSync(join(tmpdir(), "beacon-state-")));
afterAll(() => rmSync(root, { recursive: true }));
let folder = "";
let path = "";
let folders = 0;
beforeEach(() => {
  folder = join(root, String(folders++));
  mkdirSync(folder);
  path = join(folder, "state");
});

let secret = 1;

/** A table with a secret of its own, as each start of a beacon has, and a state file for it. */
function beacon({
  at = path,
  nodesMax = 1000,
  workers = 2,
  wallMs = WALL_MS,
  ttlS = TTL_S,
}: {
  at?: string;
  nodesMax?: number;
  workers?: number;
  wallMs?: number;
  ttlS?: number;
} = {}) {
  const memory = new SharedMemory({ workers, nodesMax, routesMax: 1 });
  secret = Math.imul(secret, 0x9e37_79b1);
  memory.words[HASH_SECRET] = secret;
  const nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
  const file = new StateFile(at, memory, nodes, ttlS, () => wallMs);
  const load = (options: Partial<LoadOptions> = {}): Promise<LoadResult> =>
    file.load({ nowS: 1, accepts: () => true, localNumber: () => 0, ...options });
  return { memory, nodes, file, load };
}

const entriesOf = (nodes: NodeTableOwner): Map<number, NodeEntry> =>
  new Map([...nodes.entries()].map((entry) => [entry.nodeId, entry]));

/** The file's bytes, by what the head of src/control/nodes/state-file.ts says. */
interface Entry {
  readonly id: number;
  readonly endpoint?: Int32Array;
  readonly flags?: number;
  readonly ageS?: number;
}

function fileBytes(
  entries: readonly Entry[],
  header: {
    magic?: string;
    version?: number;
    entryBytes?: number;
    savedMs?: number;
    count?: number;
  } = {},
): Buffer {
  const bytes = Buffer.alloc(32 + 32 * entries.length);
  bytes.write(header.magic ?? "PBNODES\n", 0, "latin1");
  bytes.writeUInt16LE(header.version ?? 1, 8);
  bytes.writeUInt16LE(header.entryBytes ?? 32, 10);
  bytes.writeBigUInt64LE(BigInt(header.savedMs ?? WALL_MS), 16);
  bytes.writeUInt32LE(header.count ?? entries.length, 24);
  for (const [i, { id, endpoint = HOME, flags = 0, ageS = 0 }] of entries.entries()) {
    const at = 32 + 32 * i;
    bytes.writeInt32LE(id, at);
    Buffer.from(endpoint.buffer, endpoint.byteOffset, 24).copy(bytes, at + 4);
    bytes.writeUInt16LE(flags, at + 4);
    bytes.writeUInt32LE(ageS, at + 28);
  }
  return sealed(bytes);
}

/** With the checksum that its bytes need. */
function sealed(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(
    Bun.hash.crc32(Buffer.concat([bytes.subarray(32), bytes.subarray(0, 28)])),
    28,
  );
  return bytes;
}

/** Expects these bytes in the file. */
function expectFile(bytes: Buffer): void {
  expect(readFileSync(path, "hex")).toBe(bytes.toString("hex"));
}

async function failure(promise: Promise<unknown>): Promise<Error> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(StateFileError);
  const { message } = error as Error;
  expect(message).not.toInclude("\n");
  return error as Error;
}

const filesIn = (directory: string): string[] => readdirSync(directory).sort();

describe("the format", () => {
  test("is what its description says, byte by byte", async () => {
    const { nodes, file } = beacon();
    nodes.record(0x0102_0304, endpointOf("192.0.2.33", 0x1234), 0, 1, 70);
    expect(await file.save(100)).toMatchObject({ nodes: 1, bytes: 64 });
    const hex = readFileSync(path).toString("hex");
    expect(hex.slice(0, 56)).toBe("50424e4f4445530a01002000000000007b68e5cf8b01000001000000");
    expect(hex.slice(64)).toBe("040302010100123400000000000000000000ffffc0000221000000001e000000");
    expectFile(
      fileBytes([
        { id: 0x0102_0304, endpoint: endpointOf("192.0.2.33", 0x1234), flags: 1, ageS: 30 },
      ]),
    );
  });

  test("an empty table is a header", async () => {
    const saved = await beacon().file.save(1);
    expect(saved).toMatchObject({ nodes: 0, bytes: 32 });
    expectFile(fileBytes([]));
    expect(await beacon().load()).toMatchObject({ outcome: "restored", restored: 0 });
  });
});

describe("there and back", () => {
  const entry = fc.record({
    id: nodeId,
    endpoint: anyEndpoint.filter((endpoint) => (endpoint[0]! & ENDPOINT_PORT_MASK) !== 0),
    wantsDest: fc.boolean(),
    ageS: fc.oneof(fc.integer({ min: 0, max: TTL_S + 5 }), fc.constantFrom(TTL_S - 1, TTL_S)),
  });

  test("every node comes back as it was and as old as it is by then", async () => {
    const down = fc.oneof(fc.constant(0), fc.integer({ min: -1_000_000, max: 100_000 }));
    const entries = fc.uniqueArray(entry, { selector: ({ id }) => id, maxLength: 60 });
    await fc.assert(
      fc.asyncProperty(
        entries,
        down,
        fc.integer({ min: 1, max: 1e6 }),
        async (known, downMs, nowS) => {
          const before = beacon();
          for (const { id, endpoint, wantsDest, ageS } of known)
            expect(before.nodes.record(id, endpoint, 0, wantsDest ? 1 : 0, nowS - ageS)).toBe(
              ADDED,
            );
          await before.file.save(nowS);
          const after = beacon({ wallMs: WALL_MS + downMs });
          const result = await after.load({ nowS: 5 });
          const elapsedS = downMs < 0 ? 0 : Math.floor(downMs / 1000);
          const fresh = known.filter(({ ageS }) => ageS + elapsedS < TTL_S);
          expect(result).toMatchObject({
            outcome: "restored",
            restored: fresh.length,
            unusable: 0,
            noRoom: 0,
          });
          const found = entriesOf(after.nodes);
          expect(found.size).toBe(fresh.length);
          for (const { id, endpoint, wantsDest, ageS } of fresh) {
            const seenS = 5 - ageS - elapsedS;
            const isBridged = false;
            expect(found.get(id >>> 0)).toEqual({
              nodeId: id >>> 0,
              endpoint,
              wantsDest,
              seenS,
              isBridged,
            });
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  test("a file of many chunks, into a table of another size", async () => {
    const before = beacon({ nodesMax: 30_000, workers: 3 });
    for (let id = 1; id <= 30_000; id++)
      before.nodes.record(-id, HOME, 0, id & 1, 1000 - (id % TTL_S));
    const saved = (await before.file.save(1000))!;
    expect(saved).toMatchObject({ nodes: 30_000, bytes: statSync(path).size });
    const after = beacon({ nodesMax: 40_000, workers: 1 });
    expect(await after.load({ nowS: 1 })).toMatchObject({
      outcome: "restored",
      restored: 30_000,
      tooOld: 0,
    });
    for (const { nodeId, wantsDest, seenS } of after.nodes.entries()) {
      const id = -(nodeId | 0);
      expect([wantsDest, seenS]).toEqual([(id & 1) === 1, 1 - (id % TTL_S)]);
    }
    expect(after.nodes.size()).toBe(30_000);
  });

  test("restored nodes can be refreshed, and expire when their time is over", async () => {
    writeFileSync(
      path,
      fileBytes([
        { id: 1, ageS: 590 },
        { id: 2, ageS: 10 },
        { id: 3, ageS: 590 },
      ]),
    );
    const { nodes, load } = beacon({ workers: 1 });
    await load({ nowS: 1 });
    nodes.record(3, AWAY, 0, 0, 5);
    expect(nodes.expire(0, 0, nodes.slotsPerShard, 12 - TTL_S)).toBe(1);
    expect([...entriesOf(nodes).keys()].sort()).toEqual([2, 3]);
  });
});

describe("keys", () => {
  const KEYS = [1, 2, 3].map((id) => new Uint8Array(32).fill(id));
  const viewOf = (key: Uint8Array) => new DataView(key.slice().buffer);
  const requireGrants = (memory: SharedMemory, required = true) => {
    memory.words[memory.rulesAt + GRANTS_REQUIRED] = Number(required);
  };
  /** Nodes 1 to 3 with a key, and 4 without. */
  function withKeys() {
    const made = beacon();
    for (let id = 1; id <= 4; id++) made.nodes.record(id, HOME, 0, 0, 1);
    for (const [i, key] of KEYS.entries())
      expect(made.nodes.keepKey(1 + i, HOME, viewOf(key), 0)).toBe(KEY_KEPT);
    return made;
  }
  const keysIn = (nodes: NodeTableOwner) => [1, 2, 3, 4].map((id) => nodes.keyOf(id));

  test("are saved while grants are required, in entries of 64 bytes", async () => {
    const { memory, nodes, file } = beacon();
    requireGrants(memory);
    nodes.record(1, HOME, 0, WANTS_DEST, 1);
    nodes.keepKey(1, HOME, viewOf(KEYS[2]!), 0);
    expect(await file.save(1)).toMatchObject({ nodes: 1, bytes: 32 + 64 });
    const plain = fileBytes([{ id: 1, flags: WANTS_DEST | 8 }], { version: 2, entryBytes: 64 });
    expectFile(sealed(Buffer.concat([plain, KEYS[2]!])));
  });

  test("come back with their nodes, and the first one stays the node's", async () => {
    const before = withKeys();
    requireGrants(before.memory);
    await before.file.save(1);
    const { nodes, load } = beacon({ workers: 1 });
    expect(await load()).toMatchObject({ outcome: "restored", restored: 4 });
    expect(keysIn(nodes)).toEqual([...KEYS, undefined]);
    expect(nodes.keepKey(1, HOME, viewOf(KEYS[1]!), 0)).toBe(KEY_REFUSED);
    expect(nodes.keyOf(1)).toEqual(KEYS[0]!);
    expect(entriesOf(nodes)).toEqual(entriesOf(before.nodes));
  });

  test("are left out while grants are not required: the file is an older beacon's", async () => {
    const { memory, nodes, file } = withKeys();
    requireGrants(memory, false);
    await file.save(1);
    const withoutKeys = [...nodes.entries()].map(({ nodeId }) => ({ id: nodeId }));
    expect(readFileSync(path).length).toBe(fileBytes(withoutKeys).length);
    const { nodes: restored, load } = beacon();
    expect(await load()).toMatchObject({ outcome: "restored", restored: 4 });
    expect(keysIn(restored)).toEqual([undefined, undefined, undefined, undefined]);
  });

  test("are zeros in the entry of a node without a key, also where an entry with a key was in the buffer", async () => {
    const nodesMax = 20_000; // of which 8,192 fill the buffer
    const { memory, nodes, file } = beacon({ nodesMax });
    requireGrants(memory);
    for (let id = 1; id <= nodesMax; id++) {
      nodes.record(id, HOME, 0, 0, 1);
      if (id % 2 === 0) nodes.keepKey(id, HOME, viewOf(KEYS[0]!), 0);
    }
    await file.save(1);
    const bytes = readFileSync(path);
    let [withKey, without] = [0, 0];
    for (let at = 32; at < bytes.length; at += 64) {
      const key = bytes.subarray(at + 32, at + 64);
      const hasKey = (bytes.readUInt16LE(at + 4) & 8) !== 0;
      if (!key.equals(hasKey ? KEYS[0]! : new Uint8Array(32))) throw new Error(`entry at ${at}`);
      if (hasKey) withKey++;
      else without++;
    }
    expect([withKey, without]).toEqual([nodesMax / 2, nodesMax / 2]);
  });

  test("of many chunks", async () => {
    const nodesMax = 20_000;
    const { memory, nodes, file } = beacon({ nodesMax });
    requireGrants(memory);
    const keyOf = (id: number) =>
      new Uint8Array(Uint32Array.from({ length: 8 }, (_, i) => id * 8 + i).buffer);
    for (let id = 1; id <= nodesMax; id++) {
      nodes.record(id, HOME, 0, 0, 1);
      if (id % 3 !== 0) nodes.keepKey(id, HOME, viewOf(keyOf(id)), 0);
    }
    await file.save(1);
    const { nodes: restored, load } = beacon({ nodesMax, workers: 3 });
    expect(await load()).toMatchObject({ restored: nodesMax });
    for (let id = 1; id <= nodesMax; id++) {
      if (!Bun.deepEquals(restored.keyOf(id), id % 3 === 0 ? undefined : keyOf(id)))
        throw new Error(`node ${id} has another key`);
    }
  });

  test("a version 2 file cut off at any byte, or with a bit turned, restores nothing", async () => {
    const { memory, file } = withKeys();
    requireGrants(memory);
    await file.save(1);
    const whole = readFileSync(path);
    for (let bytes = 0; bytes < whole.length; bytes += 7) {
      writeFileSync(path, whole.subarray(0, bytes));
      const { nodes, load } = beacon();
      expect([(await load()).outcome, nodes.size()]).toEqual([
        bytes < 8 ? "foreign" : "damaged",
        0,
      ]);
    }
    for (let byte = 8; byte < whole.length; byte += 5) {
      const turned = Buffer.from(whole);
      turned[byte]! ^= 1 << (byte % 8);
      writeFileSync(path, turned);
      const { nodes, load } = beacon();
      expect((await load()).outcome).not.toBe("restored");
      expect(nodes.size()).toBe(0);
    }
  });
});

describe("the host's clock", () => {
  const restored = async (downMs: number) => {
    writeFileSync(
      path,
      fileBytes([
        { id: 1, ageS: 0 },
        { id: 2, ageS: TTL_S - 1 },
      ]),
    );
    const { nodes, load } = beacon({ wallMs: WALL_MS + downMs });
    const { outcome, tooOld } = await load({ nowS: 1 });
    expect(outcome).toBe("restored");
    return { tooOld, seenS: [...entriesOf(nodes).values()].map(({ seenS }) => seenS) };
  };

  test("what passed while the beacon was down counts", async () => {
    expect(await restored(999)).toEqual({
      tooOld: 0,
      seenS: expect.arrayContaining([1, 2 - TTL_S]),
    });
    expect(await restored(1000)).toEqual({ tooOld: 1, seenS: [0] });
    expect(await restored(100_500)).toEqual({ tooOld: 1, seenS: [-99] });
    expect(await restored(TTL_S * 1000 - 1)).toEqual({ tooOld: 1, seenS: [2 - TTL_S] });
    expect(await restored(TTL_S * 1000)).toEqual({ tooOld: 2, seenS: [] });
  });

  test("one that went back counts as one that stood still", async () => {
    for (const downMs of [-1, -1000, -1e9, -WALL_MS]) {
      expect(await restored(downMs)).toEqual({
        tooOld: 0,
        seenS: expect.arrayContaining([1, 2 - TTL_S]),
      });
    }
  });

  test("one that jumped ahead by years makes every node too old, and a wild one in the file none", async () => {
    expect(await restored(1e12)).toEqual({ tooOld: 2, seenS: [] });
    const bytes = fileBytes([{ id: 1 }]);
    bytes.fill(0xff, 16, 24);
    writeFileSync(path, sealed(bytes));
    expect(await beacon().load()).toMatchObject({ outcome: "restored", restored: 1 });
    writeFileSync(path, fileBytes([{ id: 1 }], { savedMs: 0 }));
    expect(await beacon().load()).toMatchObject({ outcome: "restored", tooOld: 1 });
  });

  test("one before 1970 can be saved by", async () => {
    const { nodes, file } = beacon({ wallMs: -5 });
    nodes.record(7, HOME, 0, 0, 1);
    await file.save(1);
    expect(await beacon({ wallMs: 0 }).load()).toMatchObject({ outcome: "restored", restored: 1 });
  });
});

describe("what is saved", () => {
  test("nodes younger than the time to live, and such as were heard since the save began", async () => {
    const { nodes, file } = beacon();
    nodes.record(1, HOME, 0, 0, 1000 - TTL_S);
    nodes.record(2, HOME, 0, 0, 1001 - TTL_S);
    nodes.record(3, HOME, 0, 0, 1003);
    expect(await file.save(1000)).toMatchObject({ nodes: 2 });
    const after = beacon();
    await after.load({ nowS: 1 });
    expect([...entriesOf(after.nodes)].map(([id, { seenS }]) => [id, seenS]).sort()).toEqual([
      [2, 2 - TTL_S],
      [3, 1],
    ]);
  });

  test("nodes of the bridge where they were heard by UDP, as such; none that never was", async () => {
    const { nodes, file } = beacon();
    nodes.record(1, HOME, 0, 0, 90);
    nodes.record(2, AWAY, 0, WANTS_DEST, 80);
    nodes.record(3, HOME, 0, 0, 100 - TTL_S); // too old, though it is connected
    for (const id of [1, 2, 3, 4, 5]) nodes.bridge(id, 100);
    nodes.record(5, AWAY, 0, 0, 95); // since it came
    expect(await file.save(100)).toMatchObject({ nodes: 3, bytes: 32 + 3 * 32 });
    const bytes = readFileSync(path);
    const saved = [0, 1, 2].map((i) => bytes.subarray(32 + 32 * i, 64 + 32 * i).toString("hex"));
    const expected = fileBytes([
      { id: 1, endpoint: HOME, ageS: 10 },
      { id: 2, endpoint: AWAY, flags: WANTS_DEST, ageS: 20 },
      { id: 5, endpoint: AWAY, ageS: 5 },
    ]);
    expect(saved.sort()).toEqual(
      [0, 1, 2].map((i) => expected.subarray(32 + 32 * i, 64 + 32 * i).toString("hex")).sort(),
    );
    const after = beacon();
    expect(await after.load({ nowS: 1 })).toMatchObject({
      outcome: "restored",
      restored: 3,
      unusable: 0,
    });
    const found = entriesOf(after.nodes);
    expect([...found.keys()].sort()).toEqual([1, 2, 5]);
    for (const { isBridged } of found.values()) expect(isBridged).toBe(false);
    expect(found.get(2)).toMatchObject({ endpoint: AWAY, wantsDest: true, seenS: 1 - 20 });
  });

  test("nothing of a table in which all are of the bridge alone", async () => {
    const { nodes, file } = beacon();
    for (let id = 1; id <= 500; id++) nodes.bridge(id, 1);
    expect(await file.save(1)).toMatchObject({ nodes: 0, bytes: 32 });
    expectFile(fileBytes([]));
  });

  test("restored nodes that were never heard again grow older from save to save", async () => {
    writeFileSync(path, fileBytes([{ id: 7, ageS: 100 }]));
    const second = beacon();
    await second.load({ nowS: 1 });
    await second.file.save(51); // 50 s later
    const third = beacon();
    await third.load({ nowS: 1 });
    expect(entriesOf(third.nodes).get(7)?.seenS).toBe(1 - 150);
  });

  test("in a file that only this user may read, even in place of an open one", async () => {
    writeFileSync(path, fileBytes([]));
    chmodSync(path, 0o666);
    await beacon().file.save(1);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(filesIn(folder)).toEqual(["state"]);
  });

  test("in place of one that another beacon reads meanwhile, which has the old one whole", async () => {
    const { nodes, file } = beacon();
    nodes.record(7, HOME, 0, 0, 1);
    await file.save(1);
    const inode = statSync(path).ino;
    await file.save(1);
    expect(statSync(path).ino).not.toBe(inode);
  });
});

describe("what is restored", () => {
  const load = async (
    entries: readonly Entry[],
    options: Partial<LoadOptions> = {},
    nodesMax = 1000,
  ) => {
    writeFileSync(path, fileBytes(entries));
    const { nodes, load } = beacon({ nodesMax });
    return { result: await load(options), found: entriesOf(nodes) };
  };

  test("no id 0, no port 0, no endpoint that is not accepted", async () => {
    const { result, found } = await load(
      [
        { id: 0 },
        { id: 1, endpoint: endpointOf("192.0.2.1", 0) },
        { id: 2 },
        { id: 3, endpoint: AWAY },
      ],
      { accepts: (endpoint) => isIPv4(endpoint, 0) },
    );
    expect(result).toMatchObject({
      outcome: "restored",
      restored: 1,
      unusable: 3,
      tooOld: 0,
      noRoom: 0,
    });
    expect([...found.keys()]).toEqual([2]);
  });

  test("accepts is asked with the endpoint alone, without flags", async () => {
    const asked: number[][] = [];
    await load([{ id: 1, endpoint: AWAY, flags: 1 }], {
      accepts: (endpoint) => {
        asked.push([...endpoint]);
        return true;
      },
    });
    expect(asked).toEqual([[...AWAY]]);
  });

  test("no flag that a node does not have", async () => {
    writeFileSync(
      path,
      fileBytes([
        { id: 1, flags: 0xffff },
        { id: 2, flags: 0xfffe },
      ]),
    );
    const { nodes, load } = beacon();
    await load();
    const endpoint = new Int32Array(HOME.length);
    for (const [id, flags] of [
      [1, WANTS_DEST],
      [2, 0],
    ] as const) {
      nodes.slots.read(nodes.find(id), id, endpoint, 0);
      expect([...endpoint]).toEqual([HOME[0]! | flags, ...HOME.subarray(1)]);
    }
  });

  test("an age beyond all measure is too old", async () => {
    const { result } = await load([
      { id: 1, ageS: 0xffff_ffff },
      { id: 2, ageS: 0x8000_0000 },
      { id: 3, ageS: TTL_S },
    ]);
    expect(result).toMatchObject({ restored: 0, tooOld: 3 });
  });

  test("of a node that is there twice, the younger, and of two as young the later", async () => {
    for (const [firstAgeS, secondAgeS, expected] of [
      [5, 50, HOME],
      [50, 5, AWAY],
      [5, 5, AWAY],
    ] as const) {
      const { result, found } = await load([
        { id: 7, endpoint: HOME, ageS: firstAgeS },
        { id: 7, endpoint: AWAY, ageS: secondAgeS },
      ]);
      expect(result.restored).toBe(1);
      expect(found.get(7)).toMatchObject({ endpoint: expected, seenS: 1 - 5 });
    }
  });

  test("nothing over a node that was heard already", async () => {
    writeFileSync(path, fileBytes([{ id: 7, endpoint: AWAY, ageS: 0 }]));
    const { nodes, load } = beacon();
    nodes.record(7, HOME, 0, 0, 2);
    expect(await load({ nowS: 1 })).toMatchObject({ restored: 0 });
    expect(entriesOf(nodes).get(7)).toMatchObject({ endpoint: HOME, seenS: 2 });
  });

  test("as many nodes as the table takes; the others are counted, and the log says what to do", async () => {
    const entries = Array.from({ length: 30 }, (_, i) => ({ id: i + 1 }));
    const { result, found } = await load(entries, {}, 10);
    expect(result).toMatchObject({ outcome: "restored", restored: 10, noRoom: 20 });
    expect(found.size).toBe(10);
    expect(result.message).toInclude("20 without room: raise --max-nodes");
  });

  test("from a file that has more than one reason to leave nodes out, all are in one line", async () => {
    const { result } = await load(
      [{ id: 1 }, { id: 2 }, { id: 3, ageS: TTL_S }, { id: 4, endpoint: AWAY }],
      { accepts: (endpoint) => isIPv4(endpoint, 0) },
      1,
    );
    expect(result.message).toBe(
      `the state file ${JSON.stringify(path)} held 4 nodes: 1 restored, 1 too old, ` +
        "1 not to be reached from this address, 1 without room: raise --max-nodes",
    );
  });
});

describe("a file that is not as it should be", () => {
  const good = fileBytes([
    { id: 1, ageS: 3 },
    { id: -2, endpoint: AWAY, flags: 1 },
    { id: 0x7fff_ffff, ageS: 599 },
  ]);
  const shared = new SharedMemory({ workers: 1, nodesMax: 100, routesMax: 1 });
  const nodes = new NodeTableOwner(shared, MAIN_THREAD_LOCK);

  /**
   * Loads these bytes; expects an empty table, and the bytes kept aside if they begin as a state
   * file does, else untouched.
   */
  async function refused(bytes: Uint8Array): Promise<LoadResult> {
    writeFileSync(path, bytes);
    const file = new StateFile(path, shared, nodes, TTL_S, () => WALL_MS);
    const result = await file.load({ nowS: 1, accepts: () => true, localNumber: () => 0 });
    expect(nodes.size()).toBe(0);
    const isOurs = Buffer.from(bytes.subarray(0, 8)).toString("latin1") === "PBNODES\n";
    expect(isOurs ? ["damaged", "newer"] : ["foreign"]).toContain(result.outcome);
    expect(result).toMatchObject({ restored: 0, tooOld: 0, unusable: 0, noRoom: 0 });
    expect(result.message).not.toInclude("\n");
    if (isOurs) {
      expect(result.message).toInclude(`kept as ${JSON.stringify(`${path}.rejected`)}`);
      expect(existsSync(path)).toBe(false);
    }
    expect(readFileSync(isOurs ? `${path}.rejected` : path).equals(bytes)).toBe(true);
    return result;
  }

  test("the good one is good", async () => {
    writeFileSync(path, good);
    expect(await beacon().load()).toMatchObject({ outcome: "restored", restored: 3 });
    expect(filesIn(folder)).toEqual(["state"]);
  });

  test("a missing one is a quiet start", async () => {
    const { load } = beacon();
    const { outcome, message } = await load();
    expect(outcome).toBe("missing");
    expect(message).toBe(
      `the state file ${JSON.stringify(path)} does not exist yet: starting without it`,
    );
    expect(filesIn(folder)).toEqual([]);
    expect(await beacon({ at: join(folder, "none", "state") }).load()).toMatchObject({
      outcome: "missing",
    });
  });

  test("cut off at any byte", async () => {
    for (let bytes = 0; bytes < good.length; bytes++)
      expect((await refused(good.subarray(0, bytes))).outcome).toBe(
        bytes < 8 ? "foreign" : "damaged",
      );
  });

  test("with anything behind its end", async () => {
    for (const more of [1, 31, 32, 64, 300_000])
      expect((await refused(Buffer.concat([good, Buffer.alloc(more)]))).outcome).toBe("damaged");
    expect((await refused(Buffer.concat([good, good]))).outcome).toBe("damaged");
  });

  test("with any one bit turned", async () => {
    const outcomes = new Set<string>();
    for (let bit = 0; bit < good.length * 8; bit++) {
      const bytes = Buffer.from(good);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      outcomes.add((await refused(bytes)).outcome);
    }
    expect([...outcomes].sort()).toEqual(["damaged", "foreign", "newer"]);
  }, 120_000);

  test("with any stretch of it overwritten, zeroed or moved", async () => {
    const stretch = fc.record({
      at: fc.nat(good.length - 1),
      bytes: fc.oneof(
        fc.uint8Array({ minLength: 1, maxLength: 64 }),
        fc.integer({ min: 1, max: 64 }).map((length) => new Uint8Array(length)),
        fc.nat(good.length - 1).map((from) => Uint8Array.from(good.subarray(from, from + 32))),
      ),
    });
    await fc.assert(
      fc.asyncProperty(stretch, async ({ at, bytes }) => {
        const damaged = Buffer.from(good);
        damaged.set(bytes.subarray(0, damaged.length - at), at);
        fc.pre(!damaged.equals(good));
        await refused(damaged);
      }),
      { numRuns: 200 },
    );
  });

  test("with its entries in another order", async () => {
    const [header, a, b, c] = [0, 32, 64, 96].map((at) => good.subarray(at, at + 32));
    expect((await refused(Buffer.concat([header!, b!, a!, c!]))).outcome).toBe("damaged");
  });

  test("damaged in its last chunk, nothing of the first is restored", async () => {
    const bytes = fileBytes(Array.from({ length: 20_000 }, (_, i) => ({ id: i + 1 })));
    bytes[bytes.length - 1]! ^= 1;
    expect((await refused(bytes)).message).toInclude("checksum");
  });

  test("with a header that lies, though its checksum is right", async () => {
    for (const count of [2, 4, 2 ** 25 + 1, 0xffff_ffff])
      expect((await refused(fileBytes([{ id: 1 }, { id: 2 }, { id: 3 }], { count }))).outcome).toBe(
        "damaged",
      );
    for (const entryBytes of [0, 16, 31, 33, 64])
      expect((await refused(fileBytes([{ id: 1 }], { entryBytes }))).outcome).toBe("damaged");
    expect((await refused(fileBytes([{ id: 1 }], { version: 0 }))).outcome).toBe("damaged");
    for (const entryBytes of [0, 32, 63, 64, 65])
      expect((await refused(fileBytes([{ id: 1 }], { version: 2, entryBytes }))).outcome).toBe(
        "damaged",
      );
  });

  test("with a count that is too high for any beacon, though the file is as long: it is not read", async () => {
    writeFileSync(path, fileBytes([], { count: 0xffff_ffff }));
    truncateSync(path, 32 + 32 * 0xffff_ffff); // a hole of 128 GiB
    const before = bytesRead();
    expect((await beacon().load()).outcome).toBe("damaged");
    expect(bytesRead() - before).toBeLessThan(2 ** 20);
  });

  test("of a newer beacon", async () => {
    const { outcome, message } = await refused(fileBytes([{ id: 1 }], { version: 3 }));
    expect(outcome).toBe("newer");
    expect(message).toInclude("is of a newer beacon (format 3, this one knows 2)");
    expect((await refused(fileBytes([], { version: 0xffff, entryBytes: 48 }))).outcome).toBe(
      "newer",
    );
  });

  test("of another program", async () => {
    for (const text of ["", "x", "{}", "#!/bin/sh\n", "PBNODE", "PBNODES\r\n".padEnd(100)])
      expect((await refused(Buffer.from(text))).outcome).toBe("foreign");
    expect((await refused(Buffer.alloc(5000))).outcome).toBe("foreign");
    expect((await refused(fileBytes([{ id: 1 }], { magic: "PBROUTE\n" }))).outcome).toBe("foreign");
  });

  test("after a refusal, the next save and load work, and the refused file stays", async () => {
    await refused(good.subarray(0, 50));
    const before = beacon();
    before.nodes.record(7, HOME, 0, 0, 1);
    await before.file.save(1);
    expect(await beacon().load()).toMatchObject({ outcome: "restored", restored: 1 });
    expect(filesIn(folder)).toEqual(["state", "state.rejected"]);
  });

  test("where it cannot be renamed, it is left, and the message says so", async () => {
    mkdirSync(`${path}.rejected`);
    writeFileSync(path, good.subarray(0, 50));
    const { outcome, message } = await beacon().load();
    expect(outcome).toBe("damaged");
    expect(message).toMatch(
      /could not be renamed \(.* is a directory; .*\), and the next save replaces it/,
    );
    expect(readFileSync(path).equals(good.subarray(0, 50))).toBe(true);
  });

  test("no file is left open, whatever was in it", async () => {
    let before = 0;
    for (let i = 0; i < 20; i++) {
      if (i === 1) before = openFds().size; // the first round opens what the runtime keeps
      await refused(good.subarray(0, 40));
      writeFileSync(path, good);
      await beacon().load();
      await beacon().file.save(1);
      await beacon({ at: folder }).load();
      await failure(beacon({ at: folder }).file.save(1));
    }
    expect(openFds().size).toBeLessThanOrEqual(before);
  });
});

describe("a path that is not a plain file's", () => {
  test("a directory", async () => {
    const { load, file } = beacon({ at: folder });
    expect(await load()).toMatchObject({ outcome: "foreign" });
    expect((await failure(file.save(1))).message).toInclude(
      "is a directory; choose the path of a regular file",
    );
    expect(filesIn(root)).toContain(folder.slice(root.length + 1));
  });

  test("a device, which root could replace", async () => {
    const { load, file } = beacon({ at: "/dev/null" });
    expect(await load()).toMatchObject({ outcome: "foreign" });
    expect((await failure(file.save(1))).message).toInclude("is a device; choose");
    expect(lstatSync("/dev/null").isCharacterDevice()).toBe(true);
  });

  test("a pipe that nobody writes to", async () => {
    expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
    const { load, file } = beacon();
    expect(await load()).toMatchObject({ outcome: "foreign" });
    await failure(file.save(1));
    expect(lstatSync(path).isFIFO()).toBe(true);
  });

  test.each(["disk/nodes", "nowhere", "state"])(
    "a symbolic link to %s: neither it nor what it leads to is touched",
    async (target) => {
      mkdirSync(join(folder, "disk"));
      const real = join(folder, "disk", "nodes");
      writeFileSync(real, fileBytes([{ id: 1 }]));
      symlinkSync(target, path);
      const { file, load, nodes } = beacon();
      expect(await load()).toMatchObject({ outcome: "foreign" });
      expect((await failure(file.save(1))).message).toInclude("is a symbolic link; name the path");
      expect(nodes.size()).toBe(0);
      expect(lstatSync(path).isSymbolicLink()).toBe(true);
      expect(readFileSync(real).equals(fileBytes([{ id: 1 }]))).toBe(true);
      expect(filesIn(folder)).toEqual(["disk", "state"]);
    },
  );

  test("a folder may be reached through a symbolic link", async () => {
    mkdirSync(join(folder, "private"));
    symlinkSync("private", join(folder, "public"));
    const { file, load } = beacon({ at: join(folder, "public", "nodes") });
    await file.save(1);
    expect(filesIn(join(folder, "private"))).toEqual(["nodes"]);
    expect(await load()).toMatchObject({ outcome: "restored" });
  });

  test("a directory that is not there, or is a file", async () => {
    const nowhere = await failure(beacon({ at: join(folder, "none", "state") }).file.save(1));
    expect(nowhere.message).toBe(
      `the state file ${JSON.stringify(join(folder, "none", "state"))} cannot be saved: ` +
        "ENOENT: there is no such directory: create it, or choose another path",
    );
    writeFileSync(path, "");
    const within = await failure(beacon({ at: join(path, "state") }).file.save(1));
    expect(within.message).toInclude("ENOTDIR: a part of the path is no directory");
  });

  test("a name that is too long, or has no room for an ending, or breaks a line", async () => {
    for (const length of [253, 300]) {
      const at = join(folder, "x".repeat(length));
      expect((await failure(beacon({ at }).file.save(1))).message).toInclude("ENAMETOOLONG");
    }
    const { file, load } = beacon({ at: join(folder, "a\nb") });
    expect((await load()).message).not.toInclude("\n");
    expect((await file.save(1))!.message).not.toInclude("\n");
  });

  test("a relative one", async () => {
    const relative = `${"../".repeat(process.cwd().split("/").length)}${path.slice(1)}`;
    const { file, load } = beacon({ at: relative });
    await file.save(1);
    expect(filesIn(folder)).toEqual(["state"]);
    expect(await load()).toMatchObject({ outcome: "restored" });
  });
});

describe("what lies where the new file is written", () => {
  test("left by a beacon that was killed: it is replaced", async () => {
    writeFileSync(`${path}.tmp`, fileBytes([]).toString("latin1").padEnd(1_000_000), "latin1");
    chmodSync(`${path}.tmp`, 0o644);
    await beacon().file.save(1);
    expect(filesIn(folder)).toEqual(["state"]);
    expectFile(fileBytes([]));
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("a link laid there by somebody else: what it leads to is not written", async () => {
    writeFileSync(join(folder, "victim"), "untouched");
    symlinkSync("victim", `${path}.tmp`);
    expect((await failure(beacon().file.save(1))).message).toInclude(
      "state.tmp is a symbolic link",
    );
    expect(readFileSync(join(folder, "victim"), "utf8")).toBe("untouched");
    expect(filesIn(folder)).toEqual(["state.tmp", "victim"]);
  });

  test("a directory: the save fails and the old file stays", async () => {
    writeFileSync(path, fileBytes([{ id: 1 }]));
    mkdirSync(`${path}.tmp`);
    expect((await failure(beacon().file.save(1))).message).toInclude("state.tmp is a directory");
    expectFile(fileBytes([{ id: 1 }]));
  });
});

describe("saves that meet", () => {
  const NODES = 20_000;

  /** One whose save takes many slices. */
  function slow() {
    const one = beacon({ nodesMax: NODES + 1 });
    for (let id = 1; id <= NODES; id++) one.nodes.record(id, HOME, 0, 0, 1);
    return one;
  }

  test("a second one joins the first", async () => {
    const { nodes, file } = slow();
    const first = file.save(1);
    expect(file.save(1)).toBe(first);
    await first;
    nodes.record(NODES + 1, HOME, 0, 0, 1);
    await file.save(1); // a new one
    expect(await beacon({ nodesMax: NODES + 1 }).load()).toMatchObject({ restored: NODES + 1 });
  });

  test("the last one goes before one in progress, at whatever point, and holds what came since", async () => {
    const { file: reference } = slow();
    const startMs = performance.now();
    await reference.save(1);
    const saveMs = performance.now() - startMs;
    let overtaken = 0;
    for (let step = 0; step <= 12; step++) {
      const { nodes, file } = slow();
      const before = file.save(1);
      if (step > 0) await Bun.sleep((saveMs * step) / 10);
      nodes.record(NODES + 1, AWAY, 0, 1, 1);
      const last = await file.saveLast(1);
      expect(last.nodes).toBeGreaterThan(NODES);
      expect(filesIn(folder)).toEqual(["state"]);
      if ((await before) === undefined) overtaken++;
      const after = beacon({ nodesMax: NODES + 1 });
      expect(await after.load()).toMatchObject({ outcome: "restored", restored: NODES + 1 });
      expect(entriesOf(after.nodes).get(NODES + 1)).toMatchObject({ endpoint: AWAY });
    }
    expect(overtaken).toBeGreaterThan(0);
  });

  test("the last one is one, and none comes after it", async () => {
    const { nodes, file } = slow();
    const last = file.saveLast(1);
    expect(file.saveLast(1)).toBe(last);
    expect(await file.save(1)).toBeUndefined();
    await last;
    const inode = statSync(path).ino;
    nodes.record(NODES + 1, HOME, 0, 0, 1);
    expect(await file.save(1)).toBeUndefined();
    expect(await file.saveLast(1)).toBe(await last);
    expect(statSync(path).ino).toBe(inode);
  });

  test("the last one makes no pauses", async () => {
    const { file } = slow();
    const timers = spyOn(Bun, "sleep");
    try {
      await file.save(1);
      const pauses = timers.mock.calls.length;
      expect(pauses).toBeGreaterThan(0);
      await file.saveLast(1);
      expect(timers.mock.calls.length).toBe(pauses);
    } finally {
      timers.mockRestore();
    }
  });

  test("one that fails leaves the next to itself, and the last one too", async () => {
    const { file } = slow();
    mkdirSync(`${path}.tmp`);
    await failure(file.save(1));
    const failing = failure(file.save(1));
    const last = failure(file.saveLast(1));
    await failing;
    await last;
    const another = slow();
    const before = failure(another.file.save(1));
    await before;
    rmSync(`${path}.tmp`, { recursive: true });
    expect((await another.file.saveLast(1)).nodes).toBeGreaterThanOrEqual(NODES);
    expect(filesIn(folder)).toEqual(["state"]);
  });

  test("nodes that are removed and added while one goes on do not harm those that stay", async () => {
    const { nodes, file } = slow();
    const churn = setInterval(() => {
      for (let id = 1; id <= 1000; id++)
        nodes.record(Math.ceil(Math.random() * NODES) | 1, HOME, 0, 0, -1e6);
      for (let shard = 0; shard < nodes.shards; shard++)
        nodes.expire(shard, 0, nodes.slotsPerShard, -1e5);
    }, 1);
    await file.save(1);
    clearInterval(churn);
    expect(nodes.size()).toBeLessThan(NODES);
    const after = beacon({ nodesMax: NODES + 1 });
    await after.load();
    const found = entriesOf(after.nodes);
    for (let id = 2; id <= NODES; id += 2) expect(found.has(id)).toBe(true);
  });
});

describe("in a process of its own", () => {
  const run = (before: readonly string[], at: string, ...counts: number[]): StateFileReport => {
    const command = [...before, process.execPath, CHILD, at, ...counts.map(String)];
    const { stdout, stderr } = Bun.spawnSync(command);
    if (stdout.length === 0) throw new Error(stderr.toString());
    return JSON.parse(stdout.toString()) as StateFileReport;
  };

  test("killed in the midst of a save: the old file is whole, and the next save works", async () => {
    const count = 90_000;
    expect(run([], path, 5).load).toMatchObject({ outcome: "restored", restored: 5 });
    const old = readFileSync(path);
    const child = Bun.spawn([process.execPath, CHILD, path, String(count)], { stdout: "ignore" });
    while (!(existsSync(`${path}.tmp`) && statSync(`${path}.tmp`).size > 0)) {
      expect(child.exitCode).toBeNull();
      await Bun.sleep(1);
    }
    child.kill("SIGKILL");
    await child.exited;
    expect(filesIn(folder)).toEqual(["state", "state.tmp"]);
    expectFile(old);
    // The remains would not pass for a whole file.
    copyFileSync(`${path}.tmp`, join(folder, "left"));
    expect(await beacon({ at: join(folder, "left") }).load()).toMatchObject({ outcome: "damaged" });
    unlinkSync(join(folder, "left.rejected"));
    const { load, files } = run([], path, count);
    expect(load).toMatchObject({ outcome: "restored", restored: count });
    expect(files).toEqual(["state"]);
  }, 120_000);

  const isRoot = process.getuid?.() === 0;
  const can = (...command: string[]): boolean =>
    Bun.which(command[0]!) !== null && Bun.spawnSync(command).exitCode === 0;
  const ownMounts = isRoot && can("unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt");
  const needsMounts = ownMounts ? "" : " (needs root and mount namespaces)";

  test.skipIf(!ownMounts)(`a disk that fills up: the old file stays${needsMounts}`, () => {
    const mount = `mount -t tmpfs -o size=256k none "${folder}" && exec "$@"`;
    const { saves, load, files } = run(
      ["unshare", "--mount", "sh", "-c", mount, "sh"],
      path,
      50,
      20_000,
    );
    expect(saves[0]).toInclude("saved 50 nodes");
    expect(saves[1]).toInclude("cannot be saved: ENOSPC: that disk is full: free some space");
    expect(load).toMatchObject({ outcome: "restored", restored: 50 });
    expect(files).toEqual(["state"]);
  });

  test.skipIf(!ownMounts)(`a file system that is read-only${needsMounts}`, () => {
    const damaged = fileBytes([{ id: 1 }]).subarray(0, 40);
    writeFileSync(path, damaged);
    const mount = `mount --bind "${folder}" "${folder}" && mount -o remount,bind,ro "${folder}" && exec "$@"`;
    const { saves, load } = run(["unshare", "--mount", "sh", "-c", mount, "sh"], path, 5);
    expect(saves[0]).toInclude("cannot be saved: EROFS: that file system is read-only");
    expect(load.outcome).toBe("damaged");
    expect(load.message).toInclude("could not be renamed (EROFS)");
    expect(readFileSync(path).equals(damaged)).toBe(true);
  });

  test.skipIf(!ownMounts)(`a file that is a mount of its own${needsMounts}`, () => {
    writeFileSync(path, fileBytes([{ id: 1 }]));
    writeFileSync(join(folder, "other"), fileBytes([], { savedMs: Date.now() }));
    const mount = `mount --bind "${folder}/other" "${path}" && exec "$@"`;
    const { saves, load, files } = run(["unshare", "--mount", "sh", "-c", mount, "sh"], path, 5);
    expect(saves[0]).toInclude("EBUSY: the file is a mount of its own: mount its directory");
    expect(load).toMatchObject({ outcome: "restored", restored: 0 });
    expect(files).toEqual(["other", "state"]);
  });

  const NOBODY = "65534";
  const asNobody = isRoot
    ? ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"]
    : [];
  const unprivileged =
    can(...asNobody, process.execPath, "--version") && can(...asNobody, "test", "-r", CHILD);

  const needsUser = " (needs setpriv, and sources that all may read)";

  test.skipIf(!unprivileged)(
    `a directory that this user may not write to, and a file that it may not read${unprivileged ? "" : needsUser}`,
    () => {
      chmodSync(root, 0o755);
      writeFileSync(path, fileBytes([{ id: 1 }], { savedMs: Date.now() }));
      chmodSync(path, 0o644);
      chmodSync(folder, 0o555);
      const closed = run(asNobody, path, 5);
      expect(closed.saves[0]).toInclude("cannot be saved: EACCES: this user may not write there");
      expect(closed.load).toMatchObject({ outcome: "restored", restored: 1 });
      chmodSync(folder, 0o777);
      chmodSync(path, 0o000);
      const unreadable = run(asNobody, path);
      expect(unreadable.load.outcome).toBe("unreadable");
      expect(unreadable.load.message).toInclude("cannot be read (EACCES)");
      expect(unreadable.files).toEqual(["state"]);
      chmodSync(path, 0o600);
    },
  );

  test.skipIf(!unprivileged)(
    `a directory that this user may write to but not read${unprivileged ? "" : needsUser}`,
    () => {
      chmodSync(root, 0o755);
      const inner = join(folder, "inner");
      mkdirSync(inner);
      chmodSync(inner, 0o333);
      writeFileSync(join(inner, "state"), fileBytes([]));
      chmodSync(folder, 0o755);
      expect(run(asNobody, join(inner, "state"), 5).saves[0]).toInclude("saved 5 nodes");
      chmodSync(inner, 0o755);
      expect(filesIn(inner)).toEqual(["state"]);
    },
  );
});
