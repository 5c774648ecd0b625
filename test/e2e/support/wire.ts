/**
 * Beacon messages as a client writes and reads them, from the protocol's description and not from
 * src/protocol.ts.
 */

/** An address as it stands in a message. */
export interface WireAddress {
  readonly address: string;
  readonly port: number;
}

export type Message =
  | {
      readonly type: "discoverReply" | "punchCommand";
      readonly address: string;
      readonly port: number;
    }
  | { readonly type: "deliver"; readonly senderId: number; readonly payload: Uint8Array }
  | {
      readonly type: "deliverDest";
      readonly senderId: number;
      readonly destId: number;
      readonly payload: Uint8Array;
    };

function message(
  type: number,
  ids: readonly number[],
  rest: Uint8Array = new Uint8Array(),
): Uint8Array {
  const bytes = Buffer.alloc(1 + 4 * ids.length + rest.length);
  bytes[0] = type;
  for (const [i, id] of ids.entries()) bytes.writeUInt32BE(id, 1 + 4 * i);
  bytes.set(rest, 1 + 4 * ids.length);
  return bytes;
}

export const discover = (nodeId: number, rest?: Uint8Array) => message(0x01, [nodeId], rest);
export const discoverEx = (nodeId: number, rest?: Uint8Array) => message(0x08, [nodeId], rest);
export const punchRequest = (requesterId: number, targetId: number, rest?: Uint8Array) =>
  message(0x03, [requesterId, targetId], rest);
export const relay = (senderId: number, destId: number, payload: Uint8Array) =>
  message(0x05, [senderId, destId], payload);
export const deliver = (senderId: number, payload: Uint8Array) =>
  message(0x06, [senderId], payload);
export const deliverDest = (senderId: number, destId: number, payload: Uint8Array) =>
  message(0x09, [senderId, destId], payload);

/** @param count what it says of the number of ids; the truth unless given */
export function sync(
  beaconId: number,
  nodeIds: readonly number[],
  count = nodeIds.length,
): Uint8Array {
  const bytes = Buffer.alloc(7 + 4 * nodeIds.length);
  bytes[0] = 0x07;
  bytes.writeUInt32BE(beaconId, 1);
  bytes.writeUInt16BE(count, 5);
  for (const [i, id] of nodeIds.entries()) bytes.writeUInt32BE(id, 7 + 4 * i);
  return bytes;
}

/** Reads gossip. @throws Error for anything else, also for bytes too many */
export function decodeSync(bytes: Uint8Array): { beaconId: number; nodeIds: number[] } {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (buffer[0] !== 0x07 || buffer.length < 7 || buffer.length !== 7 + 4 * buffer.readUInt16BE(5)) {
    throw new Error(`no gossip: ${buffer.subarray(0, 32).toString("hex")}`);
  }
  const nodeIds = Array.from({ length: buffer.readUInt16BE(5) }, (_, i) =>
    buffer.readUInt32BE(7 + 4 * i),
  );
  return { beaconId: buffer.readUInt32BE(1), nodeIds };
}

/** Reads what a beacon sends to a node. @throws Error for anything else, also for bytes too many */
export function decode(bytes: Uint8Array): Message {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  switch (buffer[0]) {
    case 0x02:
    case 0x04:
      return {
        type: buffer[0] === 0x02 ? "discoverReply" : "punchCommand",
        ...decodeAddress(buffer),
      };
    case 0x06:
      return { type: "deliver", senderId: buffer.readUInt32BE(1), payload: bytes.subarray(5) };
    case 0x09:
      return {
        type: "deliverDest",
        senderId: buffer.readUInt32BE(1),
        destId: buffer.readUInt32BE(5),
        payload: bytes.subarray(9),
      };
    default:
      throw new Error(`a beacon does not send this: ${buffer.subarray(0, 32).toString("hex")}`);
  }
}

function decodeAddress(buffer: Buffer): WireAddress {
  const ipBytes = buffer[1]!;
  if ((ipBytes !== 4 && ipBytes !== 16) || buffer.length !== 4 + ipBytes) {
    throw new Error(`a broken address: ${buffer.toString("hex")}`);
  }
  const port = buffer.readUInt16BE(2 + ipBytes);
  const ip = buffer.subarray(2, 2 + ipBytes);
  if (ipBytes === 4) return { address: ip.join("."), port };
  const groups = Array.from({ length: 8 }, (_, i) => ip.readUInt16BE(2 * i).toString(16));
  return { address: new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1), port };
}
