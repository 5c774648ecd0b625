/** No attack on the beacon: the same packets at a port where nobody listens. What they cost, the host pays, and the attacker's core. */
import type { Attack, Scene } from "../attack.ts";
import { Barrage } from "../barrage.ts";
import { fromEverywhere, OwnSender, SpoofingSender } from "../datagrams.ts";
import { always, MESSAGE_BYTES_MAX, NOBODYS_FROM, relays } from "../messages.ts";
import { SPOOFED_SOURCES } from "./sources.ts";

const CLOSED_PORT = 9;
const closed = ({ beacon }: Scene) => ({ ...beacon, port: CLOSED_PORT });
const messages = relays(always(NOBODYS_FROM), always(NOBODYS_FROM));

export const CONTROL_ATTACKS: readonly Attack[] = [
  {
    name: "control, one source",
    does: "sends to a closed port of the beacon's host",
    stage: "alone",
    inSmoke: false,
    missesBeacon: true,
    start: (scene) =>
      new Barrage(
        new OwnSender(scene.attackerAddress, closed(scene), MESSAGE_BYTES_MAX, messages),
        scene.packetsPerS,
      ),
  },
  {
    name: "control, spoofed",
    does: "sends to a closed port of the beacon's host, in the name of many",
    stage: "alone",
    inSmoke: false,
    missesBeacon: true,
    start: (scene) =>
      new Barrage(
        new SpoofingSender(fromEverywhere(SPOOFED_SOURCES), closed(scene), MESSAGE_BYTES_MAX, messages),
        scene.packetsPerS,
      ),
  },
];
