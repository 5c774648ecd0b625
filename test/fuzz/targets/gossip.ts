/** Signatures of gossip, and what becomes of lists that peers announce. */

import { Announcements } from "../../../src/control/mesh/announcements.ts";
import { Instances, readSignature, sign } from "../../../src/control/mesh/gossip-signature.ts";
import { SYNC, SYNC_BYTES, SYNC_TRAILER_BYTES } from "../../../src/protocol.ts";
import { HASH_SECRET, SharedMemory } from "../../../src/shared/memory.ts";
import { NO_PEER } from "../../../src/shared/routes.ts";
import { RouteTableOwner } from "../../../src/shared/routes-owner.ts";
import type { Choices } from "../choices.ts";
import { mutateBytes } from "../mutate.ts";
import { fail, mustBe, type Seen, type Target } from "../target.ts";

const KEYS = ["the key that is in use, 32 characters", "the key before it, of 32 characters too"];
const IDS_MAX = 12;

export const SIGNATURES: Target = {
  name: "gossip-signatures",
  about: "signed gossip: forged, cut, changed, late, replayed",
  choiceBytes: 200,
  open: () => ({ check: checkSignature }),
};

function checkSignature(choices: Choices, seen: Seen): void {
  const ids = choices.below(IDS_MAX + 1);
  const message = new Uint8Array(SYNC_BYTES + 4 * ids + SYNC_TRAILER_BYTES);
  message.set([SYNC, ...choices.bytes(4), 0, ids, ...choices.bytes(4 * ids)]);
  const key = choices.pick([...KEYS, "another key, which is nobody's at all"]);
  const timeMs = 1_700_000_000_000 + choices.below(1000);
  const bytes = sign(message, key, { instance: BigInt(choices.word()), timeMs });
  mustBe("bytes of a signed message", bytes, message.length);
  const arrived = choices.oneIn(2) ? mutateBytes(choices, message, 3) : message;
  seen.note(() => Buffer.from(arrived).toString("hex"));
  // What a worker lets through holds all the ids that it says.
  if (
    arrived.length < SYNC_BYTES ||
    arrived.length < SYNC_BYTES + 4 * ((arrived[5]! << 8) | arrived[6]!)
  )
    return;
  const read = readSignature(arrived, KEYS);
  const isSame = Buffer.compare(arrived.subarray(0, message.length), message) === 0;
  if (typeof read !== "string") {
    if (!isSame || !KEYS.includes(key)) fail("a forged message is believed");
    mustBe("time", read.timeMs, timeMs);
    const instances = new Instances(1n, () => true);
    const now = { wallMs: timeMs + choices.below(200_000) - 100_000, steadyMs: 5000 };
    const first = instances.accept(read, "a", now, 90_000);
    seen.outcome(`first ${first}`);
    if (first === undefined && instances.accept(read, "b", now, 90_000) === undefined)
      fail("accepted twice");
  } else {
    seen.outcome(read);
    if (isSame && KEYS.includes(key)) fail(`a good message is ${read}`);
  }
}

const PEERS = 4;
const POOL = 48;

export const ANNOUNCEMENTS: Target = {
  name: "announcements",
  about: "lists of nodes that peers announce, and the routes that they become",
  choiceBytes: 240,
  open: () => ({ check: checkAnnouncements }),
};

/** All named peers: whoever announced a node last, and still does, has it. */
async function checkAnnouncements(choices: Choices, seen: Seen): Promise<void> {
  const memory = memoryOf(choices.word());
  const table = new RouteTableOwner(memory);
  const announcements = new Announcements(table);
  const lists: ReadonlySet<number>[] = Array.from({ length: PEERS }, () => new Set());
  const owner = new Map<number, number>();
  for (let round = 1 + choices.below(8); round > 0; round--) {
    const peer = choices.below(PEERS);
    const ids = choices.some(24, () => choices.below(POOL));
    await announcements.announce(peer, Int32Array.from(ids));
    const list = new Set(ids.filter((id) => id !== 0));
    for (const id of lists[peer]!) if (!list.has(id) && owner.get(id) === peer) owner.delete(id);
    for (const id of list) owner.set(id, peer);
    lists[peer] = list;
    seen.outcome(`list of ${Math.min(list.size, 8)}`);
    for (let id = 0; id < POOL; id++)
      mustBe(`the peer of node ${id}`, table.find(id), owner.get(id) ?? NO_PEER);
    mustBe("routes", table.size, owner.size);
    for (let one = 0; one < PEERS; one++) {
      const routes = [...owner.values()].filter((having) => having === one).length;
      mustBe(`routes of peer ${one}`, announcements.routes(one), routes);
    }
  }
}

/** Memory of this size costs more to make than a case: it is emptied and used again. */
let memory: SharedMemory | undefined;
function memoryOf(secret: number): SharedMemory {
  memory ??= new SharedMemory({ workers: 1, nodesMax: 1, routesMax: 100 });
  memory.words.fill(0, memory.routesAt);
  memory.words[HASH_SECRET] = secret;
  return memory;
}
