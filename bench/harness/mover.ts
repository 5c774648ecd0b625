/**
 * Nodes that move between beacons, as a process of its own:
 *
 *   bun mover.ts <nodes of each beacon> <moves a second> <port of each beacon, on the loopback interface> …
 *
 * Registers them, writes "registered", and lets them move until it is ended.
 */
import { FleetNodes } from "./fleet-nodes.ts";
import { Moves } from "./moves.ts";

const [nodesEach = "", movesPerS = "", ...ports] = process.argv.slice(2);
const targets = ports.map((port) => ({ host: "127.0.0.1", port: Number(port) }));
const shape = { beacons: targets.length, nodesEach: Number(nodesEach) };
const nodes = new FleetNodes({ targets, shape });
nodes.registerAll();
console.log("registered");
if (Number(movesPerS) > 0) await new Moves(nodes, shape).run(Infinity, Number(movesPerS), true);
else await new Promise(() => {}); // nothing keeps it from being ended
