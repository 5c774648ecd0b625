/** A stream of relays, of which it shows whether one is lost or overtaken. */
import type { Client } from "./client.ts";
import { decode } from "./wire.ts";

/**
 * Relays on their way at once. Two streams fit into the smallest receive buffer that Linux gives (208 KiB, some 270 small packets):
 * on a busy machine no process receives for longer than any other number would last.
 */
const ON_THE_WAY_MAX = 64;

/**
 * Relays from one node to another, numbered, until told to stop.
 * @param to the client of the other node, which keeps what arrives meanwhile
 */
export function stream(from: Client, fromId: number, toId: number, to: Client): () => Promise<number> {
  const before = to.pending;
  let running = true;
  const sending = (async () => {
    let sent = 0;
    for (; running; await Bun.sleep(1)) {
      for (let burst = 0; burst < 3 && sent - (to.pending - before) < ON_THE_WAY_MAX; burst++) {
        const number = Buffer.alloc(4);
        number.writeUInt32BE(sent++);
        await from.relay(fromId, toId, number);
      }
    }
    return sent;
  })();
  return () => {
    running = false;
    return sending;
  };
}

/** The numbers of the relays that arrived, in order. */
export function numbersOf(client: Client): number[] {
  return client.take().flatMap(({ bytes }) => {
    const message = decode(bytes);
    return message.type === "deliver" ? [Buffer.from(message.payload).readUInt32BE(0)] : [];
  });
}
