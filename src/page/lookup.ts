/** The box that explains one node. */
import type { DropReport, NodeReport } from "../control/admin/explain.ts";
import { byId, create } from "./dom.ts";
import { count, duration, share, words } from "./format.ts";
import { authorization } from "./token.ts";

const ID_MAX = 2 ** 32 - 1;
const DROPS_SHOWN = 10;

export function serveLookups(): void {
  const input = byId<HTMLInputElement>("node");
  byId<HTMLFormElement>("lookup").addEventListener("submit", async (event) => {
    event.preventDefault();
    const id = Number(input.value);
    byId("answer").replaceChildren(
      await answerFor(id).catch(() => said("The beacon cannot be reached.")),
    );
  });
}

async function answerFor(id: number): Promise<Node> {
  if (!Number.isInteger(id) || id < 1 || id > ID_MAX)
    return said(`A node's id is 1 to ${count(ID_MAX)}.`);
  const response = await fetch(`api/nodes/${id}`, { headers: authorization(), cache: "no-store" });
  const text = await response.text();
  if (!response.ok) return said(text);
  return explained(JSON.parse(text) as NodeReport);
}

function explained({
  id,
  where,
  endpoint,
  localAddress,
  ageS,
  peer,
  shard,
  shards,
  limits,
  drops,
  next,
}: NodeReport): Node {
  const facts: [string, string][] = [
    ["Node", String(id)],
    ["Next relay", `${next.outcome}: ${next.why}`],
    ["Known", where],
    ["Endpoint", endpoint ?? "none"],
  ];
  if (localAddress) facts.push(["Sent from", localAddress]);
  if (ageS !== null) facts.push(["Heard", `${duration(ageS)} ago`]);
  if (peer) facts.push(["Peer", peer.address]);
  if (typeof peer?.claimAgeS === "number")
    facts.push(["Heard there", `${duration(peer.claimAgeS)} ago, says the directory`]);
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

function dropText({ ageS, reason, from, to, count: times }: DropReport): string {
  return `${duration(ageS)} ago, ${count(times)}×, ${words(reason)}, from ${from === 0 ? "somebody" : from} to ${to === 0 ? "nobody" : to}`;
}

function said(text: string): Node {
  return create("p", { text });
}
