/** WebSocket clients that misbehave at the bridge. */

import { RELAY_BYTES } from "../../../../src/protocol.ts";
import { clientFrame, TEXT } from "../../../../test/support/websocket.ts";
import { identityOf } from "../../identity.ts";
import type { Attack } from "../attack.ts";
import { together } from "../barrage.ts";
import { type Behaviour, Crowd } from "../crowd.ts";
import { fromEverywhere } from "../datagrams.ts";
import { always, inTurn, NOBODYS_FROM, relays } from "../messages.ts";
import { SPOOFED_SOURCES, spoofed } from "./sources.ts";

/** So much for each packet that unread connections are full within a second. */
const LARGE_BYTES = 1000;

const UPGRADE =
  "GET /v1/compat HTTP/1.1\r\nHost: beacon\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
  "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n" +
  "Sec-WebSocket-Protocol: pilot.v1\r\n\r\n";
const CHALLENGE = /\{"type":"auth_challenge"[^}]*\}/;

const upgrades: Behaviour = { opened: (socket) => void socket.write(UPGRADE) };

/** Answers the challenge, once it has come whole; it fits in one segment. */
function answering(reply: (challenge: string, n: number) => string): Behaviour {
  return {
    ...upgrades,
    heard: (socket, bytes, n) => {
      const challenge = CHALLENGE.exec(Buffer.from(bytes).toString("latin1"))?.[0];
      if (challenge !== undefined)
        socket.write(clientFrame(TEXT, Buffer.from(reply(challenge, n))));
    },
  };
}

/** Comes in the name of a node whose key it has, and reads nothing from then on. */
function deaf(nodeIds: readonly number[]): Behaviour {
  const proving = answering((challenge, n) =>
    identityOf(nodeIds[n % nodeIds.length]!).reply(challenge),
  );
  return {
    ...proving,
    heard: (socket, bytes, n) => {
      if (Buffer.from(bytes).includes("auth_ok")) socket.pause();
      else proving.heard?.(socket, bytes, n);
    },
  };
}

export const BRIDGE_ATTACKS: readonly Attack[] = [
  {
    name: "handshakes without an answer",
    does: "lets itself be challenged, again and again, and says nothing",
    stage: "bridge",
    inSmoke: false,
    newcomer: "connects",
    start: (scene) => new Crowd(scene.bridge, scene, upgrades),
  },
  {
    name: "handshakes that fail",
    does: "answers challenges wrongly in a node's name",
    stage: "bridge",
    counts: ['beacon_wss_upgrades_total{outcome="limited"}'],
    newcomer: "connects",
    start: (scene) => {
      const [claimed] = scene.honestIds;
      const wrong = answering((challenge) =>
        identityOf(NOBODYS_FROM).reply(challenge, { node_id: claimed }),
      );
      return new Crowd(scene.bridge, scene, wrong);
    },
  },
  {
    name: "nodes that do not read",
    does: "has nodes of its own on the bridge that do not read, and relays to them",
    stage: "bridge",
    newcomer: "connects",
    counts: ["beacon_wss_dropped_total"],
    start: (scene) => {
      const { ownBridgedIds } = scene;
      const large = relays(always(NOBODYS_FROM), inTurn(ownBridgedIds), LARGE_BYTES);
      const crowd = { ...scene, connectionsMax: ownBridgedIds.length };
      return together(
        new Crowd(scene.bridge, crowd, deaf(ownBridgedIds)),
        spoofed(scene, large, fromEverywhere(SPOOFED_SOURCES), RELAY_BYTES + LARGE_BYTES),
      );
    },
  },
];
