/**
 * State files as a test reads and writes them, from the format's description and not from
 * src/control/nodes/state-file.ts.
 */
import { crc32 } from "node:zlib";

/** A node with an IPv4 address. */
export interface SavedNode {
  readonly nodeId: number;
  readonly address: string;
  readonly port: number;
  readonly ageS: number;
  readonly wantsDest: boolean;
}

export interface SavedState {
  readonly savedMs: number;
  readonly nodes: readonly SavedNode[];
}

const MAGIC = "PBNODES\n";
const HEADER_BYTES = 32;
const ENTRY_BYTES = 32;
/** ::ffff:0:0/96 */
const IPV4_PREFIX = Buffer.from("00000000000000000000ffff", "hex");

/** The file's bytes. @param version of the format; this beacon's is 1 */
export function encodeState({ savedMs, nodes }: SavedState, version = 1): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES + ENTRY_BYTES * nodes.length);
  bytes.write(MAGIC, "latin1");
  bytes.writeUInt16LE(version, 8);
  bytes.writeUInt16LE(ENTRY_BYTES, 10);
  bytes.writeBigUInt64LE(BigInt(savedMs), 16);
  bytes.writeUInt32LE(nodes.length, 24);
  for (const [i, { nodeId, address, port, ageS, wantsDest }] of nodes.entries()) {
    const entry = bytes.subarray(HEADER_BYTES + ENTRY_BYTES * i);
    entry.writeUInt32LE(nodeId, 0);
    entry.writeUInt16LE(Number(wantsDest), 4);
    entry.writeUInt16BE(port, 6);
    entry.set([...IPV4_PREFIX, ...address.split(".").map(Number)], 8);
    entry.writeUInt32LE(ageS, 28);
  }
  bytes.writeUInt32LE(checksum(bytes), 28);
  return bytes;
}

/** Reads a whole file. @throws Error for anything that this format does not allow, and for IPv6 */
export function decodeState(bytes: Buffer): SavedState {
  const isWhole =
    bytes.toString("latin1", 0, MAGIC.length) === MAGIC &&
    bytes.readUInt16LE(8) === 1 &&
    bytes.length === HEADER_BYTES + ENTRY_BYTES * bytes.readUInt32LE(24) &&
    checksum(bytes) === bytes.readUInt32LE(28);
  if (!isWhole)
    throw new Error(`no state file: ${bytes.subarray(0, HEADER_BYTES).toString("hex")}`);
  const nodes: SavedNode[] = [];
  for (let at = HEADER_BYTES; at < bytes.length; at += ENTRY_BYTES) {
    const entry = bytes.subarray(at, at + ENTRY_BYTES);
    if (!entry.subarray(8, 20).equals(IPV4_PREFIX)) throw new Error("a node with an IPv6 address");
    nodes.push({
      nodeId: entry.readUInt32LE(0),
      address: entry.subarray(20, 24).join("."),
      port: entry.readUInt16BE(6),
      ageS: entry.readUInt32LE(28),
      wantsDest: (entry.readUInt16LE(4) & 1) === 1,
    });
  }
  return { savedMs: Number(bytes.readBigUInt64LE(16)), nodes };
}

/** Of the entries, and then of the header before it. */
const checksum = (bytes: Buffer) =>
  crc32(bytes.subarray(0, 28), crc32(bytes.subarray(HEADER_BYTES)));
