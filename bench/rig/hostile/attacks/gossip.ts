/** Tells the beacon that others' nodes are elsewhere. */

import { GOSSIP_NODES_MAX } from "../../../harness/gossip.ts";
import type { Attack, Scene } from "../attack.ts";
import { Barrage, together } from "../barrage.ts";
import { numberOf, OwnSender } from "../datagrams.ts";
import { alternating, gossip, gossipBytes } from "../messages.ts";
import { fromOneSource, spoofed } from "./sources.ts";

const STRANGER = 77;
/** What the largest message may say of its nodes. */
const COUNT_MAX = 65_535;
/** Largest messages a second: 6.5 MB/s, in fragments. */
const LARGEST_PER_S = 100;

const claims = (scene: Scene, beaconId: number) =>
  alternating(
    gossip(beaconId, scene.honestIds),
    gossip(beaconId, []),
    gossip(beaconId, scene.sleepingIds),
  );
const claimBytes = ({ honestIds, sleepingIds }: Scene) =>
  gossipBytes(Math.max(honestIds.length, sleepingIds.length));

export const GOSSIP_ATTACKS: readonly Attack[] = [
  {
    name: "gossip of a stranger",
    does: "claims the nodes of the beacon and of its peer, and withdraws them",
    stage: "mesh",
    counts: ["beacon_gossip_rejected_total"],
    start: (scene) => fromOneSource(scene, claims(scene, STRANGER), claimBytes(scene)),
  },
  {
    name: "gossip without end",
    does: "says more nodes than it holds, and sends the largest messages",
    stage: "mesh",
    inSmoke: false,
    counts: ["beacon_gossip_rejected_total"],
    start: (scene) => {
      const everybody = Array.from({ length: GOSSIP_NODES_MAX }, (_, i) => i + 1);
      const largest = new OwnSender(
        scene.attackerAddress,
        scene.beacon,
        gossipBytes(GOSSIP_NODES_MAX),
        gossip(STRANGER, everybody),
      );
      return together(
        fromOneSource(scene, gossip(STRANGER, scene.honestIds, COUNT_MAX), claimBytes(scene)),
        new Barrage(largest, LARGEST_PER_S),
      );
    },
  },
  {
    name: "gossip in the peer's name",
    does: "withdraws the peer's nodes and claims others, from its address",
    stage: "signed mesh",
    isLong: true,
    counts: ["beacon_gossip_rejected_total"],
    start: (scene) => {
      const { address, port } = scene.peer;
      const asPeer = () => ({ address: numberOf(address), port });
      return spoofed(scene, claims(scene, scene.peerId), asPeer, claimBytes(scene));
    },
  },
];
