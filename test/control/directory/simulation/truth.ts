/** What has to be right once it is calm: every beacon knows where every node is. */
import type { Beacon } from "./beacon.ts";
import type { Node, World } from "./world.ts";

/** What a beacon finds when it looks a node up that another beacon has. */
interface Lookup {
  readonly beacon: Beacon;
  readonly node: Node;
  readonly holder: Beacon;
  readonly isRight: boolean;
}

/** Looks up every node that one beacon has at all others. */
export function* lookups(world: World): Generator<Lookup> {
  const told = world.live().filter((beacon) => beacon.directory.stats().state !== "duplicate");
  for (const node of world.nodes) {
    const [holder, other] = told.filter((beacon) => beacon.nodes.heard.has(node.id));
    if (holder === undefined || node.isPoisoned) continue;
    for (const beacon of told) {
      if (beacon === holder || beacon === other) continue;
      const peer = beacon.table.find(node.id);
      const isRight = other === undefined && peer === beacon.peers.numberOf(holder.name);
      yield { beacon, node, holder, isRight };
    }
  }
}

/** @returns what is wrong, in words */
export function wrongs(world: World): string[] {
  const live = world.live();
  const told = live.filter((beacon) => beacon.directory.stats().state !== "duplicate");
  const wrong = [...wrongNames(live, told)];
  const holders = new Map<number, Beacon>();
  for (const node of world.nodes) {
    const holding = told.filter((beacon) => beacon.nodes.heard.has(node.id));
    if (holding[0] !== undefined) holders.set(node.id, holding[0]);
    if (node.isPoisoned) continue;
    if (holding.length > 1) wrong.push(`node ${node.id} is at ${holding.join(" and ")}`);
    const { last } = node;
    if (
      last === undefined ||
      last.isRemoved ||
      node.isForged ||
      node.isUndated ||
      !told.includes(last.beacon)
    )
      continue;
    if (holding[0] !== last.beacon)
      wrong.push(
        `node ${node.id} was last heard by ${last.beacon}, and is at ${holding[0] ?? "none"}`,
      );
  }
  for (const beacon of told)
    for (const id of beacon.nodes.residents)
      if (beacon.nodes.heard.has(id)) holders.set(id, beacon);
  for (const beacon of told) wrong.push(...wrongAt(world, beacon, told, holders));
  return wrong;
}

/** Of several processes with one name all but one are out. */
function* wrongNames(live: readonly Beacon[], told: readonly Beacon[]): Generator<string> {
  for (const beacon of live) {
    const names = told.filter(({ name }) => name === beacon.name).length;
    if (names !== 1) yield `${names} processes speak for ${beacon.name}`;
    const { state, untold, beacons } = beacon.directory.stats();
    if (state !== "ok" && state !== "duplicate") yield `${beacon} is ${state}`;
    for (const one of beacons) {
      if (one.state !== "following") yield `${beacon} is ${one.state} of ${one.name}`;
      if (!told.some(({ name }) => name === one.name)) yield `${beacon} still has ${one.name}`;
    }
    if (state === "ok" && untold > 0) yield `${beacon} has ${untold} untold changes`;
  }
}

function* wrongAt(
  { nodes, residents }: World,
  beacon: Beacon,
  told: readonly Beacon[],
  holders: ReadonlyMap<number, Beacon>,
): Generator<string> {
  const { table, peers, directory } = beacon;
  let routes = 0;
  for (const other of told) {
    if (other === beacon) continue;
    const number = peers.numberOf(other.name);
    if (
      number === undefined ||
      !directory.stats().beacons.some(({ name }) => name === other.name)
    ) {
      yield `${beacon} does not have ${other}`;
      continue;
    }
    const routed = new Set<number>();
    table.visit(0, table.sweepSteps, (nodeId, peer) => peer === number && routed.add(nodeId));
    routes += routed.size;
    if (routed.size !== table.routesOf(number))
      yield `${beacon} counts ${table.routesOf(number)} routes to ${other}, and has ${routed.size}`;
    for (const { id, isPoisoned } of nodes) {
      const isThere = holders.get(id) === other;
      if (!isPoisoned && isThere !== routed.has(id))
        yield `${beacon} routes node ${id} to ${other}: ${routed.has(id)}, must be ${isThere}`;
      routed.delete(id);
    }
    for (const id of residents) {
      const isThere = holders.get(id) === other;
      if (isThere !== routed.has(id))
        yield `${beacon} routes resident ${id} to ${other}: ${routed.has(id)}, must be ${isThere}`;
      routed.delete(id);
    }
    if (routed.size > 0) yield `${beacon} routes to ${other} what nobody has: ${[...routed]}`;
  }
  if (table.size !== routes) yield `${beacon} has ${table.size - routes} routes to who is gone`;
}
