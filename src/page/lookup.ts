/** The box that explains one node. */
import { byId, create } from "./dom.ts";
import { count, duration, share, words } from "./format.ts";
import { authorization } from "./token.ts";

const ID_MAX = 2 ** 32 - 1;
const DROPS_SHOWN = 10;

/** Of GET /api/nodes/<id>; docs/API.md. */
interface NodeAnswer {
  readonly where: string;
  readonly endpoint: string | null;
  readonly ageS: number | null;
  readonly peer: { readonly address: string; readonly gossipAgeS: number | null } | null;
  readonly shard: number;
  readonly shards: number;
  readonly limits: readonly { readonly limit: string; readonly perSecond: number; readonly used: number }[];
  readonly drops: readonly DropAnswer[];
  readonly next: { readonly outcome: string; readonly why: string };
}

interface DropAnswer {
  readonly ageS: number;
  readonly reason: string;
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

export function serveLookups(): void {
  const input = byId<HTMLInputElement>("node");
  byId<HTMLFormElement>("lookup").addEventListener("submit", async (event) => {
    event.preventDefault();
    const id = Number(input.value);
    byId("answer").replaceChildren(await answerFor(id).catch(() => said("The beacon cannot be reached.")));
  });
}

async function answerFor(id: number): Promise<Node> {
  if (!Number.isInteger(id) || id < 1 || id > ID_MAX) return said(`A node's id is 1 to ${count(ID_MAX)}.`);
  const response = await fetch(`/api/nodes/${id}`, { headers: authorization(), cache: "no-store" });
  const text = await response.text();
  if (!response.ok)
    return said(text.startsWith("not found: there are") ? "This beacon does not explain nodes." : text);
  return explained(JSON.parse(text) as NodeAnswer);
}

function explained({ where, endpoint, ageS, peer, shard, shards, limits, drops, next }: NodeAnswer): Node {
  const facts: [string, string][] = [
    ["Next relay", `${next.outcome}: ${next.why}`],
    ["Known", where],
    ["Endpoint", endpoint ?? "none"],
  ];
  if (ageS !== null) facts.push(["Heard", `${duration(ageS)} ago`]);
  if (peer) facts.push(["Peer", peer.address]);
  facts.push(["Shard", `${shard} of ${shards}`]);
  for (const { limit, perSecond, used } of limits)
    facts.push([`Limit ${words(limit)}`, `${share(used)} of ${count(perSecond)}/s`]);
  for (const drop of drops.slice(0, DROPS_SHOWN)) facts.push(["Dropped", dropText(drop)]);
  return create(
    "dl",
    {},
    ...facts.flatMap(([term, text]) => [create("dt", { text: term }), create("dd", { text })]),
  );
}

function dropText({ ageS, reason, from, to, count: times }: DropAnswer): string {
  return `${duration(ageS)} ago, ${count(times)}×, ${words(reason)}, from ${from === 0 ? "somebody" : from} to ${to === 0 ? "nobody" : to}`;
}

function said(text: string): Node {
  return create("p", { text });
}
