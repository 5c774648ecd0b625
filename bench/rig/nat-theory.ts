/**
 * What must become of two nodes that punch through NATs of given behaviours. Pure; the rig shows
 * whether it is true.
 */
import type { Behaviour, Dependence } from "./nat.ts";

/**
 * direct: datagrams go both ways between the two, without the beacon.
 * relay: they do not, but through the beacon they do.
 * unreachable: nothing reaches the other one, not even through the beacon, until it registers
 * again.
 */
export type Outcome = "direct" | "relay" | "unreachable";

const STRICTNESS: readonly Dependence[] = [
  "endpoint-independent",
  "address-dependent",
  "address-and-port-dependent",
];
const stricter = (a: Dependence, b: Dependence): Dependence =>
  STRICTNESS.indexOf(a) > STRICTNESS.indexOf(b) ? a : b;

/** No NAT and no firewall: an endpoint is the same for all, and takes from all. */
export const OPEN: Behaviour = {
  mapping: "endpoint-independent",
  filtering: "endpoint-independent",
};
/** No NAT, but a firewall that lets in what answers. */
export const FIREWALLED: Behaviour = {
  mapping: "endpoint-independent",
  filtering: "address-and-port-dependent",
};

/**
 * Boxes one behind the other: the outside sees another port as soon as one changes it, and gets in
 * where all let it in.
 */
export function chained(...boxes: readonly Behaviour[]): Behaviour {
  return boxes.reduce(
    (all, { mapping, filtering }) => ({
      mapping: stricter(all.mapping, mapping),
      filtering: stricter(all.filtering, filtering),
    }),
    OPEN,
  );
}

export interface Circumstances {
  /**
   * Whether both are behind one NAT, so that they meet at its external address, and whether it
   * turns them round there.
   */
  readonly sameNat?: { readonly hairpin: boolean };
  /** Whether the mapping that the beacon knows of the target has expired. */
  readonly targetExpired?: boolean;
}

/**
 * Two nodes, each of which sends to the endpoint of the other that the beacon knows, over and over,
 * and answers where it is reached from.
 */
export function predict(
  requester: Behaviour,
  target: Behaviour,
  { sameNat, targetExpired = false }: Circumstances = {},
): Outcome {
  // The beacon's PunchCommand and relays meet the same closed door as everybody's packets.
  if (targetExpired) return "unreachable";
  if (sameNat?.hairpin === false) return "relay";
  return opens(requester, target) || opens(target, requester) ? "direct" : "relay";
}

/**
 * Whether what `from` sends to the known endpoint of `to` arrives, and the answer arrives as well.
 */
function opens(from: Behaviour, to: Behaviour): boolean {
  const steady = (one: Behaviour) => one.mapping === "endpoint-independent";
  // `to` has sent to the known endpoint of `from`, but only with a steady mapping through its own
  // known endpoint.
  const arrives =
    to.filtering === "endpoint-independent" ||
    (steady(to) && (to.filtering === "address-dependent" || steady(from)));
  // `from` has sent to the known endpoint of `to`; with a steady mapping the answer comes from just
  // there, else from another port of the same address.
  const answerArrives = steady(to) || from.filtering !== "address-and-port-dependent";
  return arrives && answerArrives;
}
