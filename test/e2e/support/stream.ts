/** A stream of relays, of which it shows whether one is lost or overtaken. */
import type { Client } from "./client.ts";
import { decode } from "./wire.ts";

/** Relays from one node to another, numbered, until told to stop. */
export function stream(from: Client, fromId: number, toId: number): () => Promise<number> {
  let running = true;
  const sending = (async () => {
    let sent = 0;
    for (; running; await Bun.sleep(1)) {
      for (let burst = 0; burst < 3; burst++) {
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
