/** How attacks send packets to the beacon: as themselves, or as many others. */
import type { Assault, Scene } from "../attack.ts";
import { Barrage, together } from "../barrage.ts";
import {
  fromEverywhere,
  OwnSender,
  type Source,
  SpoofingSender,
  type Write,
} from "../datagrams.ts";
import { MESSAGE_BYTES_MAX } from "../messages.ts";

/** In whose names an attacker sends who sends in many. */
export const SPOOFED_SOURCES = 10_000;

export function fromOneSource(scene: Scene, write: Write, bytesMax = MESSAGE_BYTES_MAX): Assault {
  return new Barrage(
    new OwnSender(scene.attackerAddress, scene.beacon, bytesMax, write),
    scene.packetsPerS,
  );
}

/** From many addresses of one network, over IPv6. */
export function fromOneNetwork(scene: Scene, write: (address: number) => Write): Assault {
  const { attackerNetwork, beaconIPv6, packetsPerS } = scene;
  return together(
    ...attackerNetwork.map(
      (address, i) =>
        new Barrage(
          new OwnSender(address, beaconIPv6, MESSAGE_BYTES_MAX, write(i)),
          packetsPerS / attackerNetwork.length,
        ),
    ),
  );
}

export function spoofed(
  scene: Scene,
  write: Write,
  source: Source = fromEverywhere(SPOOFED_SOURCES),
  bytesMax = MESSAGE_BYTES_MAX,
): Assault {
  return new Barrage(new SpoofingSender(source, scene.beacon, bytesMax, write), scene.packetsPerS);
}
