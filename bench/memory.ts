/** Memory with a full table: half a million nodes registered from 64 sockets, none lost. */
import { AF_INET } from "../ffi/abi.ts";
import { endpointOf } from "../ffi/endpoint.ts";
import { kernel } from "../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch, SendBatch } from "../ffi/mmsg.ts";
import { UdpSocket } from "../ffi/socket.ts";
import type { Stats } from "../src/beacon.ts";
import { DISCOVER, DISCOVER_BYTES } from "../src/protocol.ts";
import type { BenchOptions } from "./options.ts";
import { printMachine, showBar } from "./report.ts";
import { residentBytes, startBeacon } from "./targets.ts";

const NODES = 500_000;
const NODES_SMOKE = 20_000;
const SOCKETS = 64;
/** Discovers sent before their answers are awaited; a socket's default buffer holds the answers. */
const WINDOW = 128;
/** How long answers may take before the Discovers are sent again, as daemons do. */
const RETRY_MS = 200;
const TRIES_MAX = 50;
const MIB = 1 << 20;

export async function benchMemory({ smoke, batch }: BenchOptions): Promise<void> {
  printMachine();
  const nodes = smoke ? NODES_SMOKE : NODES;
  const target = await startBeacon({ offload: true, batch }, [`--max-nodes=${NODES}`, "--workers=2"]);
  try {
    const emptyMib = residentBytes(target.pid) / MIB;
    const start = performance.now();
    const again = registerAll(target.port, nodes);
    const seconds = (performance.now() - start) / 1000;
    const stats = (await (await fetch(new URL("api/stats", target.http))).json()) as Stats;
    const fullMib = residentBytes(target.pid) / MIB;
    const lost = nodes - stats.nodes;
    console.log(
      `  ${nodes} nodes from ${SOCKETS} sockets in ${seconds.toFixed(1)} s, ${again} Discovers sent again: ` +
        `${stats.nodes} in the table, ${lost} lost; ${showBar(lost, { atMost: 0 })}`,
    );
    console.log(
      `  resident ${emptyMib.toFixed(0)} MiB empty, ${fullMib.toFixed(0)} MiB full = ` +
        `${((fullMib * MIB) / 1e6).toFixed(0)} MB; ${showBar((fullMib * MIB) / 1e6, { atMost: 250 })}`,
    );
  } finally {
    await target.stop();
  }
}

/** Registers `count` nodes from SOCKETS sockets, ids from 1 on. @returns Discovers that had to be repeated */
export function registerAll(port: number, count: number): number {
  let again = 0;
  for (let socket = 0; socket < SOCKETS; socket++) {
    const from = Math.floor((count * socket) / SOCKETS);
    again += register(port, 1 + from, Math.floor((count * (socket + 1)) / SOCKETS) - from);
  }
  return again;
}

/** Registers `count` nodes, ids from `firstId` on, from one socket. @returns Discovers that had to be repeated */
function register(port: number, firstId: number, count: number): number {
  const socket = UdpSocket.open(AF_INET);
  socket.bind("127.0.0.1", 0);
  socket.setTimeouts(RETRY_MS, RETRY_MS);
  const memory = allocatePacketMemory(WINDOW, WINDOW * 8);
  const receive = new ReceiveBatch(kernel, socket.fd, AF_INET, WINDOW, memory, false);
  const send = new SendBatch(kernel, socket.fd, AF_INET, WINDOW, memory);
  const view = new DataView(memory.buffer);
  const target = endpointOf("127.0.0.1", port);
  for (let i = 0; i < WINDOW; i++) {
    send.setDestination(i, target, 0);
    send.setPiece(i, 0, receive.extraAt + i * 8, DISCOVER_BYTES);
    send.finish(i, 1, 0);
    view.setUint8(receive.extraAt + i * 8, DISCOVER);
  }
  let again = 0;
  for (let done = 0; done < count; ) {
    const window = Math.min(WINDOW, count - done);
    for (let i = 0; i < window; i++) view.setUint32(receive.extraAt + i * 8 + 1, firstId + done + i);
    let answers = 0;
    for (let attempt = 0; answers < window; attempt++) {
      if (attempt === TRIES_MAX) throw new Error("the beacon stopped answering");
      if (attempt > 0) again += window;
      answers = 0; // an answer names no node: after a loss the whole window is asked again
      for (let sent = 0; sent < window; ) sent += Math.max(0, send.send(sent, window, true));
      while (answers < window) {
        const messages = receive.receive(true);
        if (messages <= 0) break;
        answers += messages;
      }
    }
    done += window;
  }
  socket.close();
  return again;
}
