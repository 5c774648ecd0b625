/** What a probe found, in words: what is well, and for all that is not, where to look. */
import { EXIT_NO, EXIT_OK, EXIT_UNREACHABLE } from "../console.ts";
import type { Probed, Punch, Trips } from "./probe.ts";

export function exitCodeOf(probed: Probed): number {
  if (probed.seenAs === null) return EXIT_UNREACHABLE;
  return problemsOf(probed).length === 0 ? EXIT_OK : EXIT_NO;
}

/** A line for each. */
export function problemsOf({
  beacon,
  seenAs,
  error,
  roundTrips,
  registered,
  punch,
  relay,
}: Probed): string[] {
  if (seenAs === null) return [noAnswer(beacon, error)];
  const problems: string[] = [];
  if (roundTrips !== null && roundTrips.lost > 0)
    problems.push(
      `${roundTrips.lost} of ${roundTrips.sent} questions or answers were lost on the way, or the beacon answers this address too often already (--answer-limit)`,
    );
  if (registered === false)
    problems.push(
      "it tells addresses, but takes no new node: its table is full (--max-nodes), or the way loses packets",
    );
  if (punch !== null && !punch.ok) problems.push(punchProblem(punch));
  if (relay !== null && relay.lost > 0)
    problems.push(
      relay.lost === relay.sent
        ? "it answers, but relays nothing: relaying is switched off there (a breaker), this address is over a limit (--relay-limit, --relay-address-limit, --new-node-limit), or packets of this size do not get through (try --size 64)"
        : `${relay.lost} of ${relay.sent} relays were lost: on the way, in a buffer, or over --relay-limit (4,000 a second by default) or --relay-address-limit (20,000)`,
    );
  return problems;
}

function noAnswer(beacon: string, error: string | null): string {
  switch (error) {
    case null:
      return `${beacon}: no answer: a firewall drops it, no beacon is there, or it has Discover switched off (a breaker)`;
    case "ECONNREFUSED":
      return `${beacon}: refused: the host is there, but nothing listens on that UDP port`;
    case "ENETUNREACH":
    case "EHOSTUNREACH":
    case "EADDRNOTAVAIL":
      return `${beacon}: no way there from here (${error}): no route, or no address of that family on this host`;
    default:
      return `${beacon}: no answer (${error})`;
  }
}

function punchProblem({ requesterWasTold, targetWasTold }: Punch): string {
  if (requesterWasTold === null && targetWasTold === null)
    return "no punch: punching is switched off there (a breaker), needs a grant (--require-punch-grant), or others of this address punch, too (--punch-source-limit)";
  if (requesterWasTold === null || targetWasTold === null)
    return `a punch reached only the ${requesterWasTold === null ? "target" : "requester"}: the other message was lost on the way`;
  return `a punch told wrong addresses (${requesterWasTold} and ${targetWasTold}): something on the way changes this host's address or port by itself`;
}

export function reportLines(probed: Probed): string[] {
  const { beacon, here, seenAs, roundTrips, punch, relay } = probed;
  const problems = problemsOf(probed);
  if (seenAs === null) return problems;
  const row = (name: string, text: string) => `${name.padEnd(12)} ${text}`;
  return [
    row("beacon", `${beacon} answers`),
    row(
      "address",
      seenAs === here
        ? `${seenAs}, no NAT between`
        : `${seenAs} as the beacon sees it, ${here} here: a NAT between`,
    ),
    ...(roundTrips === null ? [] : [row("round trips", tripsText(roundTrips))]),
    ...(punch === null
      ? []
      : [row("punch", punch.ok ? "both ends were told of each other" : "failed")]),
    ...(relay === null ? [] : [row("relays", tripsText(relay))]),
    ...problems.map((problem) => `! ${problem}`),
  ];
}

function tripsText({ sent, lost, p50Ms, p99Ms }: Trips): string {
  const came = `${sent - lost} of ${sent}`;
  return p50Ms === null ? came : `${came}, half of them within ${p50Ms} ms, 99% within ${p99Ms} ms`;
}
