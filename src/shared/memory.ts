/**
 * The one map of the memory that the main thread and the workers share. Nobody else computes an
 * offset in it.
 *
 *   process words   64 bytes             what the main thread tells all workers, and they tell it
 *   rules           64 bytes, and lists  what the operator allows, which the main thread alone writes
 *   rates           16 bytes a limit     the same of limits, see limits.ts
 *   worker words    64 bytes a worker    what one worker tells the main thread; and the WebSocket bridge, which is on it
 *   counters        a row a worker       floats, see counters.ts; one more row each for the WebSocket bridge and for grants
 *   drops           64 KiB a row         what was dropped last, by node, see drops.ts; rows as of the counters
 *   shards          128 bytes a shard    lock and counts; shard i belongs with worker i
 *   arrivals        128 KiB a row        ids of nodes that were added, see arrivals.ts; a row for the main thread and each worker
 *   groups          4 bytes a group      which parts of the node table were ever used
 *   peers           keys and slots       the peer beacons, see peers.ts
 *   punches         header, filter, 16 bytes a pair: which punches are watched, see punch-watch.ts
 *   sources         64 bytes a line      what sources of packets have used of the limits, see limits.ts
 *   local addresses 32 bytes an address  addresses of this host that are sent to, see local-addresses.ts
 *   mailboxes       16 MiB a worker      what workers hand to the main thread, see mailbox.ts
 *   nodes           64 bytes a slot      one node, one cache line, see nodes.ts
 *   routes          8 bytes a slot       which peer has a node, see routes.ts
 *   heard           8 bytes a node slot  when the node was last heard, a float, see heard.ts
 *
 * Everything starts on a cache line and starts as zero. Nodes' public keys, 32 bytes a slot, have a
 * buffer of their own: no buffer may be larger than 4 GiB (JavaScriptCore), and for the largest
 * tables one for all would be.
 */
import { LOCAL_NUMBERS_END } from "../../ffi/endpoint.ts";
import { COUNTER_ROW, LIMITS, type Limit } from "./counters.ts";
import { SLOT_WORDS } from "./slots.ts";

const LINE_WORDS = 64 / 4;

/**
 * Slots for each node, and for each route, of the limit. With half of them empty, a search looks at
 * 1.5 slots for a node that is there and 2.5 for one that is not (Knuth, TAOCP 6.4), each a cache
 * line.
 */
const SLOTS_PER_ENTRY = 2;
/** So that an overfull shard of a small table has room, and no search meets its start. */
const SLOTS_MIN = 1024;

/** Slots that share a word for "was ever used": 4 KiB, a page of most kernels. */
export const GROUP_SLOTS = 64;

/** Limit of peers: a full mesh has tens of beacons. */
export const PEERS_MAX = 128;
/**
 * Endpoints of learned peers, strangers whose gossip is believed: the lowest of their numbers is
 * PEERS_MAX. So few that they can route half a million nodes between them, and yet more than a mesh
 * of beacons that do not name each other has.
 */
export const LEARNED_PEERS_MAX = 32;
export const PEER_PLACES = PEERS_MAX + LEARNED_PEERS_MAX;
/** A route's slot: node id, and which peer has it. */
export const ROUTE_WORDS = 2;
/**
 * Pairs of nodes whose punch is watched at once: for a minute each, 273 new ones a second, twice
 * what the limit on punch requests lets in of 4,000 nodes. A power of two.
 */
export const PUNCH_PLACES = 2 ** 14;
/** Words of such a pair's place. */
export const PUNCH_WORDS = 4;
/** Words of the filter, 16 bits in two epochs: a fifth of the bits at most are set. */
export const PUNCH_FILTER_WORDS = 2 ** 12;
/** Words of a local address: its state and an endpoint's, rounded up. */
export const LOCAL_ADDRESS_WORDS = 8;
/** Words of a node's Ed25519 public key. */
export const NODE_KEY_WORDS = 8;
/** Mailboxes: peers' gossip; frames for bridged nodes; punch requests to verify. */
export const GOSSIP = 0;
export const FRAMES = 1;
export const GRANTS = 2;
/**
 * A mailbox: a gossip message of the largest size from nearly each of PEERS_MAX peers, which may
 * all speak at once; or frames of 1,200 bytes for 30 ms at 200,000 a second, far more than the main
 * thread ever looks away. Only as much of it takes memory as was ever full (mailbox.ts). A power of
 * two.
 */
export const MAILBOX_WORDS = (8 << 20) / 4;
/** The last mailbox: grants for half a second, as many as are verified. A power of two. */
export const GRANTS_MAILBOX_WORDS = (64 << 10) / 4;

/**
 * Ids that a row of arrivals holds: what a worker that does nothing else adds in 80 ms. Who looks
 * away for longer while so many come finds more in the table than in the ring anyway. A power of
 * two.
 */
export const ARRIVALS_RING = 2 ** 15;

/** Sizes that fix the map. */
export interface MemoryShape {
  readonly workers: number;
  readonly nodesMax: number;
  readonly routesMax: number;
}

// Process words.
/** 0 while workers are to receive; else STOP or PARK. */
export const STOPPING = 0;
/** Every worker leaves its loop. */
export const STOP = 1;
/** Workers sleep, with nothing in hand: another process receives from their sockets. */
export const PARK = 2;
/** Seconds on the main thread's monotonic clock, from 1. */
export const CLOCK_S = 1;
/** Secret of the node hash. */
export const HASH_SECRET = 2;
/** The errno for which a worker found that merged sends cannot work on this host, else 0. */
export const OFFLOAD_ERRNO = 3;
/** +1 whenever a worker put something into a mailbox; the main thread waits on it. */
export const MAIL = 4;

// Rules, from `rulesAt`; apart from the process words, which workers write to.
/** Seconds after its last refresh during which a node's endpoint stays where it is; 0 for none. */
export const ENDPOINT_HOLD_S = 0;
/** Not 0: limits count what they would drop, and drop nothing. */
export const LIMITS_SHADOW = 1;
/** Bit i: nothing of the kind that BREAKERS[i] names is handled. */
export const BREAKER_BITS = 2;
/** Not 0: punch requests are handed to the main thread, which asks for the target's signature. */
export const GRANTS_REQUIRED = 3;
/** Not 0: gossip of others than peers is taken, too. */
export const STRANGERS_BELIEVED = 4;
/** Not 0: pairs of nodes that are told of each other are watched. */
export const PUNCH_WATCH = 5;
/**
 * Not 0: it is noted which nodes are added, and when each was heard. May be set at any time, and
 * then stays set: what is noted would not move with its node meanwhile. Whoever sets it begins to
 * read arrivals then, and looks through the table after that.
 */
export const ARRIVALS_NOTED = 6;
/** Lists of prefixes (prefixes.ts): denied endpoints, unlimited punchers, no hosts. */
export const DENIED_ENDPOINTS = 0;
export const PUNCH_ALLOWED = 1;
export const NO_HOSTS = 2;
const PREFIX_LISTS = 3;
/** Prefixes of a list: those of the operator, and some that are always there. */
export const PREFIX_LIST_MAX = 160;
/** Words of a prefix: address and mask. */
export const PREFIX_WORDS = 8;
/** A list: its head, and two copies of its prefixes. */
const PREFIX_LIST_WORDS = LINE_WORDS + 2 * PREFIX_LIST_MAX * PREFIX_WORDS;

/** Floats of a limit's rate: see limits.ts. */
export const RATE_FLOATS = 2;
/** Floats of a line of sources, a cache line. */
export const SOURCE_LINE_FLOATS = LINE_WORDS / 2;
/**
 * Lines that a limit's sources share, by limit. 8 MiB for relays, so that two busy sources among
 * hundreds hardly ever share their cells (a pair does by 1 in 3.7 million), and for the punch
 * requests of a source, of which the fewest are allowed, so that a flood of made-up sources is
 * thinly spread; 1 MiB else. One for what all share; none for the endpoint hold, which counts
 * nothing.
 */
const SOURCE_LINES: Readonly<Record<Limit, number>> = {
  relay: 2 ** 17,
  relay_address: 2 ** 14,
  punch_source: 2 ** 17,
  punch: 1,
  new_node: 2 ** 14,
  answer: 2 ** 14,
  endpoint_hold: 0,
};

/** A row of drops: sets, a power of two; entries of a set, a cache line; words of one. */
export const DROP_SETS = 1024;
export const DROP_SET_ENTRIES = 4;
export const DROP_ENTRY_WORDS = LINE_WORDS / DROP_SET_ENTRIES;
const DROP_ROW_WORDS = DROP_SETS * LINE_WORDS;

// Worker words, from `workerWords(worker)`.
/** The last node that somebody wanted to punch to and that was not known. */
export const LAST_UNKNOWN_TARGET = 0;
/** +1 at every step of its loop, so at least at every receive timeout. */
export const HEARTBEAT = 1;
/** Last rejected gossip: 1 + offset into GOSSIP_REJECTIONS, and its source endpoint. */
export const LAST_REJECTION = 2;
export const LAST_REJECTED_SOURCE = 3;
/** The thread's number in the kernel, for its CPU time; behind LAST_REJECTED_SOURCE. */
export const THREAD_ID = 9;
/** Not 0 once the worker saw PARK; the main thread clears it. Behind the endpoint. */
export const IS_PARKED = 10;

// Shard words, from `shardWords(shard)`.
/** Who holds the shard's lock: 0 nobody, 1 the main thread, 2 + i worker i. */
export const SHARD_LOCK = 0;
export const SHARD_NODES = 1;
/** Odd during a removal, and changed by it: searches check it. A cache line of its own. */
export const SHARD_REMOVALS = LINE_WORDS;
const SHARD_WORDS = 2 * LINE_WORDS;

// Peer words, from `peersAt`.
/** Peers lie below this number, and learned ones below PEERS_MAX and this one. */
export const PEERS_END = 0;
export const LEARNED_END = 1;

// Punch words, from `punchesAt`.
/** 0 or 1: in which half of the filter's words bits are set. */
export const PUNCH_EPOCH = 0;
/** +1 for each pair for which there was no room. */
export const PUNCH_UNWATCHED = 1;
/** The clock second in which a pair was last told of each other. */
export const PUNCH_LAST_S = 2;

// Arrival words, from `arrivals(row)`.
/** Ids ever put in; only the row's thread writes it. */
export const ARRIVALS_HEAD = 0;
export const ARRIVALS_IDS = LINE_WORDS;
const ARRIVALS_ROW_WORDS = ARRIVALS_IDS + ARRIVALS_RING;

// Route words, from `routesAt`.
export const ROUTE_REMOVALS = 0;

// Mailbox words, from `mailbox(kind, worker)`; each on a line of its own, as each has another
// writer.
/** Words ever put in; only the worker writes it. */
export const MAILBOX_HEAD = 0;
/** Count when the ring was last begun; written by the worker while the ring is empty. */
export const MAILBOX_BEGUN = 1;
/** Words ever taken out; only the main thread writes it. */
export const MAILBOX_TAIL = LINE_WORDS;
export const MAILBOX_RING = 2 * LINE_WORDS;
/** All of a worker's. */
const MAILBOXES_WORDS =
  GRANTS * (MAILBOX_RING + MAILBOX_WORDS) + MAILBOX_RING + GRANTS_MAILBOX_WORDS;

export const MAIN_THREAD_LOCK = 1;
export const workerLock = (worker: number): number => 2 + worker;

/** Slots of a table of so many routes. */
export const routeSlotsFor = (routesMax: number): number =>
  Math.max(SLOTS_MIN, routesMax * SLOTS_PER_ENTRY);

export class SharedMemory {
  readonly buffer: SharedArrayBuffer;
  readonly keysBuffer: SharedArrayBuffer;
  /** The nodes' keys, while grants are required; each at `nodeKey`. */
  readonly nodeKeys: Int32Array;
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  readonly counters: Float64Array;
  readonly floats: Float64Array;
  readonly shards: number;
  readonly slotsPerShard: number;
  readonly routeSlots: number;
  /** First words of the peers' words, of their keys, and of their slots. */
  readonly peersAt: number;
  readonly peerKeysAt: number;
  readonly peerSlotsAt: number;
  /** First word of what signed peers call their present start, two words each. */
  readonly peerInstancesAt: number;
  /** First words of the watch on punches, of its filter, and of its places. */
  readonly punchesAt: number;
  readonly punchFilterAt: number;
  readonly punchPlacesAt: number;
  /** First word of the local addresses, that of number 0, which is none. */
  readonly localAddressesAt: number;
  /** First word of the first node's slot. */
  readonly slotsAt: number;
  /** First words of the routes' words, and of their slots. */
  readonly routesAt: number;
  readonly routeSlotsAt: number;
  /** First word of the drops, and the first behind them. */
  readonly dropsAt: number;
  readonly dropsEnd: number;
  /** First word of the rules. */
  readonly rulesAt: number;
  readonly #prefixListsAt: number;
  readonly #ratesAt: number;
  /** Lines of each rate: those of the limits, and that of grants, which all share. */
  readonly #sourceLines = [...LIMITS.map((limit) => SOURCE_LINES[limit]), 1];
  readonly #sourcesAt: readonly number[];
  readonly #workerWordsAt: number;
  readonly #shardWordsAt: number;
  readonly #mailboxesAt: number;
  readonly #arrivalsAt: number;
  readonly #groupsAt: number;
  readonly #groupsPerShard: number;
  readonly #heardAt: number;

  /**
   * @param buffer the same shape's memory, made by another thread; without it, new memory
   * @param keysBuffer likewise of its keys, for a thread that keeps any
   */
  constructor(
    readonly shape: MemoryShape,
    buffer?: SharedArrayBuffer,
    keysBuffer?: SharedArrayBuffer,
  ) {
    const { workers, nodesMax, routesMax } = shape;
    this.shards = workers;
    this.slotsPerShard = Math.max(SLOTS_MIN, Math.ceil((nodesMax * SLOTS_PER_ENTRY) / workers));
    this.routeSlots = routeSlotsFor(routesMax);
    let words = LINE_WORDS;
    const reserve = (count: number): number => {
      const at = words;
      words = Math.ceil((at + count) / LINE_WORDS) * LINE_WORDS;
      return at;
    };
    this.rulesAt = reserve(LINE_WORDS);
    this.#prefixListsAt = reserve(PREFIX_LISTS * PREFIX_LIST_WORDS);
    this.#ratesAt = reserve(this.#sourceLines.length * RATE_FLOATS * 2);
    this.#workerWordsAt = reserve((workers + 1) * LINE_WORDS);
    const countersAt = reserve((workers + 2) * COUNTER_ROW * 2);
    this.dropsAt = reserve((workers + 2) * DROP_ROW_WORDS);
    this.dropsEnd = words;
    this.#shardWordsAt = reserve(this.shards * SHARD_WORDS);
    this.#arrivalsAt = reserve((workers + 1) * ARRIVALS_ROW_WORDS);
    this.#groupsPerShard = Math.ceil(this.slotsPerShard / GROUP_SLOTS);
    this.#groupsAt = reserve(this.shards * this.#groupsPerShard);
    this.peersAt = reserve(LINE_WORDS);
    this.peerKeysAt = reserve(PEER_PLACES);
    this.peerSlotsAt = reserve(PEER_PLACES * SLOT_WORDS);
    this.peerInstancesAt = reserve(PEER_PLACES * 2);
    this.punchesAt = reserve(LINE_WORDS);
    this.punchFilterAt = reserve(PUNCH_FILTER_WORDS);
    this.punchPlacesAt = reserve(PUNCH_PLACES * PUNCH_WORDS);
    this.localAddressesAt = reserve(LOCAL_NUMBERS_END * LOCAL_ADDRESS_WORDS);
    this.#sourcesAt = this.#sourceLines.map((lines) => reserve(lines * LINE_WORDS));
    this.#mailboxesAt = reserve(workers * MAILBOXES_WORDS);
    this.slotsAt = reserve(this.shards * this.slotsPerShard * SLOT_WORDS);
    this.routesAt = reserve(LINE_WORDS);
    this.routeSlotsAt = reserve(this.routeSlots * ROUTE_WORDS);
    this.#heardAt = reserve(this.shards * this.slotsPerShard * 2);
    this.buffer = buffer ?? new SharedArrayBuffer(words * 4);
    if (this.buffer.byteLength !== words * 4)
      throw new Error("this shared memory has another shape");
    const keysBytes =
      buffer && !keysBuffer ? 0 : this.shards * this.slotsPerShard * NODE_KEY_WORDS * 4;
    this.keysBuffer = keysBuffer ?? new SharedArrayBuffer(keysBytes);
    if (this.keysBuffer.byteLength !== keysBytes)
      throw new Error("these keys are of another shape");
    this.nodeKeys = new Int32Array(this.keysBuffer);
    this.words = new Int32Array(this.buffer);
    this.bytes = new Uint8Array(this.buffer);
    this.counters = new Float64Array(this.buffer, countersAt * 4, (workers + 2) * COUNTER_ROW);
    this.floats = new Float64Array(this.buffer);
  }

  workerWords(worker: number): number {
    return this.#workerWordsAt + worker * LINE_WORDS;
  }

  /** First column of a worker's row in `counters`. */
  counterRow(worker: number): number {
    return worker * COUNTER_ROW;
  }

  /** The bridge's own worker words. */
  get bridgeWords(): number {
    return this.workerWords(this.shape.workers);
  }

  /** First column of the bridge's row in `counters`. */
  get bridgeRow(): number {
    return this.shape.workers * COUNTER_ROW;
  }

  /** First column, in `counters`, of the row of punches whose grants the main thread verified. */
  get grantsRow(): number {
    return (this.shape.workers + 1) * COUNTER_ROW;
  }

  /** First word of the drops of the thread that has this row of the counters. */
  dropRow(counterRow: number): number {
    return this.dropsAt + (counterRow / COUNTER_ROW) * DROP_ROW_WORDS;
  }

  shardWords(shard: number): number {
    return this.#shardWordsAt + shard * SHARD_WORDS;
  }

  /** First word of a list of prefixes, its head: DENIED_ENDPOINTS or PUNCH_ALLOWED. */
  prefixList(list: number): number {
    return this.#prefixListsAt + list * PREFIX_LIST_WORDS;
  }

  /** First word of one of the two copies of a list's prefixes. */
  prefixes(list: number, copy: number): number {
    return this.prefixList(list) + LINE_WORDS + copy * PREFIX_LIST_MAX * PREFIX_WORDS;
  }

  /** First float of a limit's rate, in `floats`. */
  rate(limit: number): number {
    return this.#ratesAt / 2 + limit * RATE_FLOATS;
  }

  /** First float of a limit's lines for sources, and their number. */
  sources(limit: number): { readonly at: number; readonly lines: number } {
    return { at: this.#sourcesAt[limit]! / 2, lines: this.#sourceLines[limit]! };
  }

  /** First word of a thread's arrivals. @param row its number in the shard locks */
  arrivals(row: number): number {
    return this.#arrivalsAt + row * ARRIVALS_ROW_WORDS;
  }

  /** Word that is not 0 once any slot of the group with slot `index` was used. */
  groupWord(shard: number, index: number): number {
    return this.#groupsAt + shard * this.#groupsPerShard + Math.floor(index / GROUP_SLOTS);
  }

  /** @param kind GOSSIP, FRAMES or GRANTS */
  mailbox(kind: number, worker: number): number {
    return this.#mailboxesAt + worker * MAILBOXES_WORDS + kind * (MAILBOX_RING + MAILBOX_WORDS);
  }

  /** The secret of the hashes of sources: of its own, as steering shows something of the nodes'. */
  get sourceSecret(): number {
    return ~this.words[HASH_SECRET]!;
  }

  /** First word, in `nodeKeys`, of the key that belongs to the node slot at word `slot`. */
  nodeKey(slot: number): number {
    return ((slot - this.slotsAt) / SLOT_WORDS) * NODE_KEY_WORDS;
  }

  /** The float, in `floats`, of when the node in the slot at word `slot` was heard. */
  heard(slot: number): number {
    return this.#heardAt / 2 + (slot - this.slotsAt) / SLOT_WORDS;
  }
}
