/**
 * Snapshots in the directory: all of a beacon's nodes, in parts, each by itself and never changed.
 *
 *   version   1 byte    1
 *   parts     2 bytes   of the snapshot; part 2 bytes, from 0 on
 *   epoch     8 bytes   float64, as in entries.ts; seq 8 bytes, time 8 bytes, likewise
 *   nodes     4 bytes
 *   ids       4 bytes each, and then ages 4 bytes each, before `time`, as in entries.ts
 *
 * Everything is big endian.
 */
import { ALL_RANGES } from "../../shared/claim-digest.ts";
import {
  ageOf,
  type Claims,
  claimedAt,
  PARTS_MAX,
  type SnapshotName,
  TIME_STEP_MS,
} from "./entries.ts";

const VERSION = 1;
const HEAD_BYTES = 1 + 2 + 2 + 8 + 8 + 8 + 4;
const NODE_BYTES = 8;

/**
 * Nodes of a part: 128 KiB. A part costs the server some 80 µs to give out, however large it is
 * (2026-11): parts of a quarter would cost a fleet that begins from nothing four times as much of
 * its one core.
 */
export const PART_NODES_MAX = 16_384;
export const PART_BYTES_MAX = HEAD_BYTES + PART_NODES_MAX * NODE_BYTES;

export interface PartHead {
  readonly epoch: number;
  readonly seq: number;
  readonly parts: number;
  readonly part: number;
  /** When it was taken. */
  readonly timeMs: number;
}

/** A part's key, behind the prefix. */
export const partKey = (
  name: string,
  epoch: number,
  { seq, ranges }: SnapshotName,
  part: number,
): string =>
  `${name}:${epoch}:${seq}${ranges === ALL_RANGES ? "" : `.${(ranges >>> 0).toString(16)}`}:${part}`;

export function encodePart(head: PartHead, claims: Claims): Uint8Array<ArrayBuffer> {
  const nodes = claims.nodeIds.length;
  const bytes = beginPart(head, nodes);
  encodeNodes(bytes, head, claims, 0, nodes);
  return bytes;
}

/** A part that lacks its nodes as yet. */
export function beginPart(head: PartHead, nodes: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEAD_BYTES + nodes * NODE_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, VERSION);
  view.setUint16(1, head.parts);
  view.setUint16(3, head.part);
  view.setFloat64(5, head.epoch);
  view.setFloat64(13, head.seq);
  view.setFloat64(21, head.timeMs);
  view.setUint32(29, nodes);
  return bytes;
}

/** Encodes claims `from` to `end` of a beacon into a part of its snapshot. */
export function encodeNodes(
  bytes: Uint8Array<ArrayBuffer>,
  { timeMs }: PartHead,
  { nodeIds, timesMs }: Claims,
  from: number,
  end: number,
): void {
  const view = new DataView(bytes.buffer);
  const nodes = nodeIds.length;
  for (let i = from; i < end; i++) {
    view.setInt32(HEAD_BYTES + 4 * i, nodeIds[i]!);
    view.setUint32(HEAD_BYTES + 4 * (nodes + i), ageOf(timesMs[i]!, timeMs));
  }
}

/** A part as it is read: claims one by one, without a copy of all. */
export interface Part {
  /** Of its snapshot, the same for all parts. */
  readonly timeMs: number;
  readonly nodes: number;
  nodeId(i: number): number;
  claimedMs(i: number): number;
}

/** @param expected what the part must say of itself. @returns undefined if it does not */
export function decodePart(
  bytes: Uint8Array,
  expected: Omit<PartHead, "timeMs">,
): Part | undefined {
  if (bytes.length < HEAD_BYTES || expected.parts > PARTS_MAX) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const nodes = view.getUint32(29);
  const timeMs = view.getFloat64(21);
  const isIt =
    view.getUint8(0) === VERSION &&
    view.getUint16(1) === expected.parts &&
    view.getUint16(3) === expected.part &&
    view.getFloat64(5) === expected.epoch &&
    view.getFloat64(13) === expected.seq &&
    timeMs >= 0 &&
    timeMs <= Number.MAX_SAFE_INTEGER * TIME_STEP_MS &&
    nodes <= PART_NODES_MAX &&
    bytes.length === HEAD_BYTES + nodes * NODE_BYTES;
  if (!isIt) return undefined;
  return {
    timeMs,
    nodes,
    nodeId: (i) => view.getInt32(HEAD_BYTES + 4 * i),
    claimedMs: (i) => claimedAt(timeMs, view.getUint32(HEAD_BYTES + 4 * (nodes + i))),
  };
}
