/** Too much of something: HTTP requests, connections, nodes that come back all at once, relays. */
import { BurstSocket } from "../../../test/e2e/support/bursts.ts";
import { relay } from "../../../test/e2e/support/wire.ts";
import { WebSocketClient } from "../../../test/support/websocket.ts";
import { type Fault, rises } from "./fault.ts";
import { bridged, nobody, throughWorkers } from "./pairs.ts";
import { addressOf, WSS_PEERS_MAX } from "./stage.ts";
import { StubbornNode } from "./traffic.ts";

const REGISTRY_FAULTS = ["registry killed", "registry hanging", "registry garbage"];

const HAMMERS = 8;
const PATHS = ["metrics", "api/stats", "healthz", "readyz", "no/such/path"];

const HTTP: Fault = {
  name: "HTTP hammered",
  forMs: [1000, 5000],
  concerns: nobody,
  backWithinMs: 2000,
  heldUpBy: ["subject paused", "files exhausted"],
  async begin({ beacons: { subject } }) {
    let [isOver, answers, failures] = [false, 0, 0];
    const hammer = async () => {
      for (let n = 0; !isOver; n++) {
        try {
          await (await subject.get(PATHS[n % PATHS.length]!)).arrayBuffer();
          answers++;
        } catch {
          failures++; // it is paused, or cannot take a connection
          await Bun.sleep(10);
        }
      }
    };
    const hammers = Promise.all(Array.from({ length: HAMMERS }, hammer));
    return {
      async end() {
        isOver = true;
        await hammers;
      },
      isWell: async () => (await subject.stats()) !== undefined,
      trace: async () =>
        answers + failures > 0 ? `${answers} answers, ${failures} requests without one` : undefined,
    };
  },
};

/** More than the bridge has room for, whatever honest nodes there are. */
const CROWD = WSS_PEERS_MAX + 20;
/** Above honest nodes' numbers. */
const CROWD_ADDRESSES_FROM = 1000;

const CONNECTIONS: Fault = {
  name: "crowd of connections",
  forMs: [1500, 6000],
  concerns: nobody,
  backWithinMs: 4000,
  heldUpBy: ["subject paused", "files exhausted"],
  async begin({ beacons: { subject } }) {
    const trace = await rises(
      subject,
      "upgrades refused as full or crowded",
      ({ bridge }) => bridge!.upgrades["full"]! + bridge!.upgrades["crowded"]!,
    );
    let found: string | undefined;
    const crowd = Array.from({ length: CROWD }, (_, i) =>
      WebSocketClient.open(subject.wss, {
        localAddress: addressOf(CROWD_ADDRESSES_FROM + i),
      }).catch(() => undefined),
    );
    const open = await Promise.all(crowd);
    return {
      async end() {
        found = await trace();
        for (const connection of open) connection?.destroy();
      },
      isWell: async () => {
        const bridge = (await subject.stats())?.bridge;
        return bridge !== undefined && bridge !== null && bridge.connections <= bridge.peers;
      },
      trace: async () => found ?? trace(),
    };
  },
};

/** Nodes that come beside the honest ones, and leave again. */
const HERD = 40;
const HERD_IDS_FROM = 500;

const HERD_BACK: Fault = {
  name: "bridged nodes reconnect",
  forMs: [500, 2000],
  concerns: bridged,
  backWithinMs: 5000,
  heldUpBy: [...REGISTRY_FAULTS, "subject paused", "files exhausted"],
  async begin(stage) {
    const { subject } = stage.beacons;
    const trace = await rises(subject, "nodes let in", ({ bridge }) => bridge!.auth["ok"]!);
    const { bridged: honest } = await stage.traffic;
    const herd = Array.from({ length: HERD }, (_, i) => {
      const id = HERD_IDS_FROM + i;
      return new StubbornNode(stage.identity(id), subject.wss, addressOf(id));
    });
    for (const node of honest) node.drop();
    return {
      end: async () => herd.forEach((node) => void node.close()),
      isWell: async () => honest.every(({ isConnected }) => isConnected),
      trace,
    };
  },
};

/**
 * Sent in one call by each of some senders, merged: more than a socket's buffer takes before its
 * worker has woken up.
 */
const SENDERS = 2;
const MESSAGES_A_TURN = 32;
const PACKETS_A_MESSAGE = 40;
const TURN_MS = 20;
const PAYLOAD = new Uint8Array(1200);
/** Nobody has these ids. */
const NOBODY = 4_000_000_000;

export const BURST: Fault = {
  name: "burst of relays",
  forMs: [400, 1000],
  concerns: throughWorkers,
  backWithinMs: 3000,
  heldUpBy: ["files exhausted"], // or nobody is told of it
  async begin({ beacons: { subject } }) {
    // How much of it a socket can hold is a matter of the machine; what its worker gets of it is
    // over the limit.
    const trace = await rises(
      subject,
      "socket receive drops and relays over the limit",
      ({ workers }) =>
        workers.reduce(
          (all, one) => all + (one.socketReceiveDrops ?? 0) + one.limited["relay"]!,
          0,
        ),
    );
    const senders = Array.from(
      { length: SENDERS },
      () => new BurstSocket("127.0.0.1", subject.udp),
    );
    const packets = Array.from({ length: PACKETS_A_MESSAGE }, () =>
      relay(NOBODY, NOBODY + 1, PAYLOAD),
    );
    const messages = Array.from({ length: MESSAGES_A_TURN }, () => packets);
    const timer = setInterval(() => {
      for (const sender of senders) sender.trySend(...messages);
    }, TURN_MS);
    return {
      async end() {
        clearInterval(timer);
        for (const sender of senders) sender.close();
      },
      isWell: async () => (await subject.stats()) !== undefined,
      trace,
    };
  },
};

/** Not at once: where there is no room, nobody can come back. */
export const LOAD_FAULTS: readonly Fault[] = [HTTP, CONNECTIONS, HERD_BACK];
