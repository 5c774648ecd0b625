/**
 * No attack on the beacon: the same packets at a port where nobody listens. What they cost, the
 * host pays, and the attacker's core.
 */
import type { Attack, Scene } from "../attack.ts";
import { Barrage } from "../barrage.ts";
import { fromEverywhere, OwnSender, type Sender, SpoofingSender } from "../datagrams.ts";
import { always, MESSAGE_BYTES_MAX, NOBODYS_FROM, relays } from "../messages.ts";
import { SPOOFED_SOURCES } from "./sources.ts";

const CLOSED_PORT = 9;
const closed = ({ beacon }: Scene) => ({ ...beacon, port: CLOSED_PORT });
const messages = relays(always(NOBODYS_FROM), always(NOBODYS_FROM));

const attack = (name: string, as: string, sender: (scene: Scene) => Sender): Attack => ({
  name: `control, ${name}`,
  does: `sends to a closed port of the beacon's host${as}`,
  stage: "alone",
  inSmoke: false,
  missesBeacon: true,
  start: (scene) => new Barrage(sender(scene), scene.packetsPerS),
});

export const CONTROL_ATTACKS: readonly Attack[] = [
  attack(
    "one source",
    "",
    (scene) => new OwnSender(scene.attackerAddress, closed(scene), MESSAGE_BYTES_MAX, messages),
  ),
  attack(
    "spoofed",
    ", in the name of many",
    (scene) =>
      new SpoofingSender(
        fromEverywhere(SPOOFED_SOURCES),
        closed(scene),
        MESSAGE_BYTES_MAX,
        messages,
      ),
  ),
];
