/** Relays more than anybody has use for. */
import type { Attack, Scene } from "../attack.ts";
import { numberOf, type Source } from "../datagrams.ts";
import { always, type Ids, inTurn, NOBODYS_FROM, relays, upFrom } from "../messages.ts";
import { fromOneSource, SPOOFED_SOURCES, spoofed } from "./sources.ts";

const SENDER = always(NOBODYS_FROM);

interface Aim {
  readonly at: string;
  readonly destinations: (scene: Scene) => Ids;
  readonly inSmoke: boolean;
}

const AIMS: readonly Aim[] = [
  { at: "nodes", destinations: ({ sleepingIds }) => inTurn(sleepingIds), inSmoke: true },
  { at: "nobody", destinations: () => upFrom(NOBODYS_FROM), inSmoke: false },
  { at: "one node", destinations: ({ sleepingIds }) => always(sleepingIds[0]!), inSmoke: false },
];

const allPorts =
  ({ attackerAddress }: Scene): Source =>
  (n) => ({ address: numberOf(attackerAddress), port: 1024 + (n % SPOOFED_SOURCES) });

/** As one of them: as all, what is allowed to each would hold all that the attacker sends. */
function asHonestSender({ honestSenders }: Scene): Source {
  const { address, port } = honestSenders[0]!;
  const source = { address: numberOf(address), port };
  return () => source;
}

export const RELAY_FLOODS: readonly Attack[] = [
  ...[false, true].flatMap((isSpoofed) =>
    AIMS.map(
      ({ at, destinations, inSmoke }): Attack => ({
        name: `relay flood to ${at}, ${isSpoofed ? "spoofed" : "one source"}`,
        does: `relays to ${at} ${isSpoofed ? "in the name of many" : "from one address and port"}`,
        stage: "alone",
        inSmoke,
        ...(!isSpoofed && { limits: ["relay"] }),
        start: (scene) =>
          (isSpoofed ? spoofed : fromOneSource)(scene, relays(SENDER, destinations(scene))),
      }),
    ),
  ),
  {
    name: "relay flood to nodes, all ports",
    does: "relays to nodes from one address, but thousands of ports",
    stage: "alone",
    inSmoke: false,
    limits: ["relay_address"],
    start: (scene) => spoofed(scene, relays(SENDER, inTurn(scene.sleepingIds)), allPorts(scene)),
  },
  {
    name: "relay flood in an honest name",
    does: "relays to nodes from the very address and port of an honest node",
    stage: "alone",
    inSmoke: false,
    limits: ["relay"],
    excuse: "UDP has no proof of its source: who can forge one spends what the limit allows it",
    start: (scene) =>
      spoofed(scene, relays(SENDER, inTurn(scene.sleepingIds)), asHonestSender(scene)),
  },
];
