/** Who relays to whom during the chaos. */

/**
 * The subject is where most faults happen. The victim is killed, stopped and cut off. The bystander
 * is left alone: what goes on in it, nothing may disturb.
 */
export const BEACONS = ["subject", "victim", "bystander"] as const;
export type BeaconName = (typeof BEACONS)[number];

/** A node's beacon, and how it is connected to it. */
export interface Seat {
  readonly beacon: BeaconName;
  readonly by: "udp" | "wss";
}

export interface Pair {
  readonly title: string;
  readonly from: Seat;
  readonly to: Seat;
}

const seat = (text: string): Seat => {
  const [by, beacon] = text.split(" at ") as ["udp" | "wss", BeaconName];
  return { by, beacon };
};

/**
 * Each relays one way, and has two nodes of its own. Several are alike where workers and sockets
 * are many.
 */
export const PAIRS: readonly Pair[] = [
  ["udp at subject", "udp at subject"],
  ["udp at subject", "udp at subject"],
  ["udp at subject", "udp at subject"],
  ["wss at subject", "wss at subject"],
  ["wss at subject", "wss at subject"],
  ["wss at subject", "udp at subject"],
  ["udp at subject", "wss at subject"],
  ["wss at subject", "udp at bystander"],
  ["udp at bystander", "wss at subject"],
  ["udp at subject", "udp at bystander"],
  ["udp at bystander", "udp at subject"],
  ["udp at bystander", "udp at bystander"],
  ["udp at bystander", "udp at bystander"],
  ["udp at subject", "udp at victim"],
  ["udp at victim", "udp at subject"],
  ["udp at bystander", "udp at victim"],
  ["udp at victim", "udp at bystander"],
  ["udp at victim", "udp at victim"],
].map(([from, to], i) => ({
  title: `${i + 1}: ${from} → ${to}`,
  from: seat(from!),
  to: seat(to!),
}));

/** Which pairs a fault may disturb. */
export type Concerned = (pair: Pair) => boolean;

export const nobody: Concerned = () => false;
export const bridged: Concerned = ({ from, to }) => from.by === "wss" || to.by === "wss";
export const thoseOf =
  (beacon: BeaconName): Concerned =>
  ({ from, to }) =>
    from.beacon === beacon || to.beacon === beacon;
export const between =
  (one: BeaconName, other: BeaconName): Concerned =>
  (pair) =>
    thoseOf(one)(pair) && thoseOf(other)(pair);
/**
 * Whose packets come to the subject's UDP port, and so to one of its workers. A bridged node's
 * leave from its main thread.
 */
export const throughWorkers: Concerned = (pair) =>
  thoseOf("subject")(pair) && pair.from.by === "udp";
