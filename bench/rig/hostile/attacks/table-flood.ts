/** Registers nodes that there are not, until the table is full. */
import type { Attack } from "../attack.ts";
import { discovers, NOBODYS_FROM, upFrom } from "../messages.ts";
import { fromOneNetwork, fromOneSource, spoofed } from "./sources.ts";

/** A table that the flood fills within its second unless it is limited. */
const SMALL_TABLE = ["--max-nodes=5000"];
/** Far more than an address comes to. */
const IDS_AN_ADDRESS = 2 ** 20;
const newNodes = discovers(upFrom(NOBODYS_FROM));

export const TABLE_FLOODS: readonly Attack[] = [
  {
    name: "table flood, one host",
    does: "registers new nodes, more than there is room for",
    stage: "alone",
    flags: SMALL_TABLE,
    limits: ["new_node", "answer"],
    newcomer: "joins",
    start: (scene) => fromOneSource(scene, newNodes),
  },
  {
    name: "table flood, one network",
    does: "registers new nodes from many addresses of one /64",
    stage: "alone",
    inSmoke: false,
    flags: SMALL_TABLE,
    limits: ["new_node", "answer"],
    newcomer: "joins",
    start: (scene) =>
      fromOneNetwork(scene, (address) =>
        discovers(upFrom(NOBODYS_FROM + address * IDS_AN_ADDRESS)),
      ),
  },
  {
    name: "table flood, spoofed",
    does: "registers new nodes in the name of many",
    stage: "alone",
    inSmoke: false,
    flags: SMALL_TABLE,
    start: (scene) => spoofed(scene, newNodes),
  },
];
