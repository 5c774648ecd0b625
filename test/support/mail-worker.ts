/**
 * A worker thread that puts messages into one of its mailboxes, one after the other; see
 * test/shared/mailbox.test.ts and test/control/mail-reader.test.ts.
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { ENDPOINT_WORDS } from "../../ffi/endpoint.ts";
import { Mailbox } from "../../src/shared/mailbox.ts";
import { type MemoryShape, SharedMemory } from "../../src/shared/memory.ts";

export interface MailWorkerData {
  readonly shape: MemoryShape;
  readonly buffer: SharedArrayBuffer;
  /** GOSSIP or FRAMES. */
  readonly kind: number;
  readonly worker: number;
  /** Serial numbers of its messages: from `first` on, `count` of them. */
  readonly first: number;
  readonly count: number;
  readonly bytesMax: number;
}

/** What a worker says at its end. */
export const ALL_PUT = "all put";

/** Bytes of the message with this serial number: mostly few, sometimes as many as there may be. */
export function bytesOf(serial: number, bytesMax: number): number {
  const mixed = Math.imul(serial, 0x9e37_79b1) >>> 0;
  return 4 + ((mixed >>> 8) % ((mixed & 7) === 0 ? bytesMax - 3 : 100));
}

/** A message that follows from its serial number, which its first four bytes are. */
export function fillMessage(serial: number, message: Uint8Array): void {
  message.fill(Math.imul(serial, 0x85eb_ca6b) >>> 24);
  new DataView(message.buffer, message.byteOffset).setInt32(0, serial);
}

/** A label that follows from the serial number, too. */
export function fillLabel(serial: number, label: Int32Array): void {
  for (let word = 0; word < ENDPOINT_WORDS; word++)
    label[word] = Math.imul(serial, word * 2 + 1) ^ word;
}

function work({ shape, buffer, kind, worker, first, count, bytesMax }: MailWorkerData): void {
  const mailbox = new Mailbox(new SharedMemory(shape, buffer), kind, worker);
  // whole words are read, from any byte on
  const packets = new DataView(new ArrayBuffer(3 + bytesMax + 3));
  const label = new Int32Array(ENDPOINT_WORDS);
  for (let serial = first; serial !== first + count; serial++) {
    const from = serial & 3;
    const bytes = bytesOf(serial, bytesMax);
    fillMessage(serial, new Uint8Array(packets.buffer, from, bytes));
    fillLabel(serial, label);
    while (!mailbox.put(label, packets, from, bytes)); // it is full: the main thread is at it
  }
  parentPort?.postMessage(ALL_PUT);
}

if (!isMainThread && workerData) work(workerData as MailWorkerData);
