/** What carries a node's messages: UDP, or a WebSocket to the beacon's bridge. */
import type { WireAddress } from "../../test/e2e/support/wire.ts";
import { TEXT, WebSocketClient } from "../../test/support/websocket.ts";
import { identityOf } from "./identity.ts";

export interface Line {
  /** Sends without waiting. @param to where; on a WebSocket everything goes to the beacon */
  send(bytes: Uint8Array, to: WireAddress): void;
  close(): void;
}

/** Where a bridge is. */
export interface Door {
  readonly url: string;
  /** PEM of the certificate to trust, where it speaks TLS. */
  readonly ca?: string;
}

/** setTimeout's longest. */
const FOR_LIFE_MS = 2 ** 31 - 1;

/** Comes to a bridge in a node's name. @throws Error if it is not let in */
export async function lineTo(
  { url, ca }: Door,
  nodeId: number,
  take: (bytes: Uint8Array) => void,
): Promise<Line> {
  const client = await WebSocketClient.open(url, ca === undefined ? {} : { ca });
  const challenge = await client.next();
  client.text(identityOf(nodeId).reply(challenge.payload.toString()));
  const answer = await client.next();
  if (answer.opcode !== TEXT || !answer.payload.includes("auth_ok"))
    throw new Error("the bridge lets nobody in");
  void takeAll(client, take);
  return { send: (bytes) => client.binary(bytes), close: () => client.close() };
}

async function takeAll(client: WebSocketClient, take: (bytes: Uint8Array) => void): Promise<void> {
  try {
    for (;;) take((await client.next(FOR_LIFE_MS)).payload);
  } catch {} // it has ended: what does not arrive is seen by who waits for it
}
