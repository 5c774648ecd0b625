/**
 * The attacker's process, and its victim's: it attacks, or counts what comes to it, as it is told.
 * Started inside a namespace.
 */
import { AF_INET } from "../../../ffi/abi.ts";
import { kernel } from "../../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch } from "../../../ffi/mmsg.ts";
import { UdpSocket } from "../../../ffi/socket.ts";
import { register } from "../../harness/register.ts";
import { obey } from "../remote.ts";
import type { Assault, Received } from "./attack.ts";
import type { AttackerCommand } from "./attacker.ts";
import { ATTACKS } from "./attacks.ts";
import { headersBytes } from "./datagrams.ts";

/** What a victim's socket takes in one go, and how often it is looked at. */
const RECEIVE_MAX = 64;
const LOOK_MS = 1;
const CALLS_MAX = 64;

let assault: Assault | undefined;
/** Of who reads nothing. */
const sleeping: UdpSocket[] = [];
const watched: ReceiveBatch[] = [];
const received = { packets: 0, bytes: 0 };

async function carryOut(command: AttackerCommand): Promise<unknown> {
  switch (command.do) {
    case "attack": {
      const attack = ATTACKS.find(({ name }) => name === command.attack);
      if (attack === undefined || assault !== undefined)
        throw new Error(`no attack ${command.attack} now`);
      assault = await attack.start(command.scene);
      return null;
    }
    case "stop": {
      const effort = await assault?.stop();
      assault = undefined;
      return effort;
    }
    case "sleep":
      return sleep(command);
    case "watch":
      return watch(command.address, command.sockets);
    case "received":
      return { ...received } satisfies Received;
  }
}

/** Registers nodes at a socket that nobody reads. */
function sleep({
  address,
  beacon,
  firstId,
  count,
}: AttackerCommand & { readonly do: "sleep" }): null {
  for (const socket of sleeping.splice(0)) socket.close();
  const socket = UdpSocket.open(AF_INET);
  sleeping.push(socket);
  socket.bind(address, 0);
  register(socket, { host: beacon.address, port: beacon.port }, firstId, count);
  return null;
}

/** Counts from now on what comes to some new sockets. @returns their ports */
function watch(address: string, sockets: number): number[] {
  if (watched.length === 0) setInterval(look, LOOK_MS);
  return Array.from({ length: sockets }, () => {
    const socket = UdpSocket.open(AF_INET);
    socket.bind(address, 0);
    const memory = allocatePacketMemory(RECEIVE_MAX, 0);
    watched.push(new ReceiveBatch(kernel, socket.fd, AF_INET, RECEIVE_MAX, memory, false));
    return socket.localAddress().port;
  });
}

function look(): void {
  for (const batch of watched) {
    for (let call = 0; call < CALLS_MAX; call++) {
      const count = batch.receive(false);
      for (let m = 0; m < count; m++) received.bytes += batch.length(m) + headersBytes(AF_INET);
      received.packets += Math.max(0, count);
      if (count < RECEIVE_MAX) break;
    }
  }
}

obey(carryOut);
