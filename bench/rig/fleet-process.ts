/**
 * A process that is many nodes at once, all on one socket: they register, and again in turn, as
 * with heartbeats. Their answers are not read.
 */
import { discover } from "../../test/e2e/support/wire.ts";
import { obey } from "./remote.ts";

export type FleetCommand =
  | {
      readonly do: "register";
      readonly nodes: number;
      /** Of the first; the others follow. */
      readonly firstId: number;
      readonly host: string;
      readonly beacon: { readonly address: string; readonly port: number };
    }
  | { readonly do: "refresh"; readonly everyMs: number };

const TICK_MS = 5;
/** For the first time: a beacon takes several times that. */
const REGISTERED_IN_TICK = 200;

let sendNext: (count: number) => void = () => {};
let nodes = 0;

async function register(command: Extract<FleetCommand, { do: "register" }>): Promise<void> {
  const { firstId, host, beacon } = command;
  nodes = command.nodes;
  const socket = await Bun.udpSocket({ hostname: host, socket: { data() {}, error() {} } });
  let next = 0;
  sendNext = (count) => {
    for (let i = 0; i < count; i++) {
      try {
        socket.send(discover(firstId + next), beacon.port, beacon.address);
      } catch {} // an ICMP answer, once nobody listens any more
      next = (next + 1) % nodes;
    }
  };
  for (let sent = 0; sent < nodes; sent += REGISTERED_IN_TICK, await Bun.sleep(TICK_MS)) {
    sendNext(Math.min(REGISTERED_IN_TICK, nodes - sent));
  }
}

/** Each node once in that time, from now on. */
function refresh(everyMs: number): void {
  const startMs = performance.now();
  let sent = 0;
  setInterval(() => {
    const due = Math.floor(((performance.now() - startMs) * nodes) / everyMs);
    sendNext(due - sent);
    sent = due;
  }, TICK_MS);
}

obey<FleetCommand>(async (command) => {
  if (command.do === "register") await register(command);
  else refresh(command.everyMs);
  return null;
});
