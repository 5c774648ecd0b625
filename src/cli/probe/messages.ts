/** Messages of a probe: the formats of src/protocol.ts from a node's side. */

import { hostPort } from "../../../ffi/host-port.ts";
import {
  DISCOVER,
  DISCOVER_BYTES,
  DISCOVER_REPLY,
  FIRST_ID_AT,
  PUNCH_COMMAND,
  PUNCH_REQUEST,
  PUNCH_REQUEST_BYTES,
  RELAY,
  RELAY_BYTES,
  RELAY_DELIVER,
  RELAY_DELIVER_BYTES,
  SECOND_ID_AT,
} from "../../protocol.ts";

/** @param nodeId unsigned; 0 asks for the address alone, and leaves no node behind */
export function discover(nodeId: number): Buffer {
  const bytes = Buffer.alloc(DISCOVER_BYTES);
  bytes[0] = DISCOVER;
  bytes.writeUInt32BE(nodeId, FIRST_ID_AT);
  return bytes;
}

export function punchRequest(requesterId: number, targetId: number): Buffer {
  const bytes = Buffer.alloc(PUNCH_REQUEST_BYTES);
  bytes[0] = PUNCH_REQUEST;
  bytes.writeUInt32BE(requesterId, FIRST_ID_AT);
  bytes.writeUInt32BE(targetId, SECOND_ID_AT);
  return bytes;
}

export function relay(senderId: number, destId: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(RELAY_BYTES + payload.length);
  bytes[0] = RELAY;
  bytes.writeUInt32BE(senderId, FIRST_ID_AT);
  bytes.writeUInt32BE(destId, SECOND_ID_AT);
  bytes.set(payload, RELAY_BYTES);
  return bytes;
}

/**
 * @returns the address that a message of this type holds, "192.0.2.7:4000" or "[2001:db8::7]:4000";
 * undefined for any other message
 */
export function addressIn(
  type: typeof DISCOVER_REPLY | typeof PUNCH_COMMAND,
  bytes: Buffer,
): string | undefined {
  const ipBytes = bytes[1];
  if (bytes[0] !== type || (ipBytes !== 4 && ipBytes !== 16) || bytes.length < 4 + ipBytes)
    return undefined;
  const port = bytes.readUInt16BE(2 + ipBytes);
  const ip = bytes.subarray(2, 2 + ipBytes);
  if (ipBytes === 4) return hostPort(ip.join("."), port);
  const groups = Array.from({ length: 8 }, (_, i) => ip.readUInt16BE(2 * i).toString(16));
  // A URL writes it as everybody does, with its zeros left out.
  return `${new URL(`http://[${groups.join(":")}]`).hostname}:${port}`;
}

/** @returns the payload of a relay that this node sent; undefined for any other message */
export function payloadFrom(senderId: number, bytes: Buffer): Buffer | undefined {
  if (bytes[0] !== RELAY_DELIVER || bytes.length < RELAY_DELIVER_BYTES) return undefined;
  return bytes.readUInt32BE(FIRST_ID_AT) === senderId
    ? bytes.subarray(RELAY_DELIVER_BYTES)
    : undefined;
}

export { DISCOVER_REPLY, PUNCH_COMMAND };
