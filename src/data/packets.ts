/** One packet: parsed, routed, rewritten in place, and put into a run. */

import { MESSAGES_MAX } from "../../ffi/abi.ts";
import type { Clock } from "../../ffi/clock.ts";
import {
  ENDPOINT_FLAGS_MASK,
  ENDPOINT_PORT_MASK,
  ENDPOINT_WORDS,
  hasNoPort,
  setLocalNumber,
} from "../../ffi/endpoint.ts";
import {
  DELIVER_AT,
  DISCOVER,
  DISCOVER_BYTES,
  DISCOVER_EX,
  DISCOVER_REPLY,
  DISCOVER_WITH_KEY_BYTES,
  FIRST_ID_AT,
  MESSAGE_NAMES,
  NODE_KEY_AT,
  PUNCH_REQUEST,
  PUNCH_REQUEST_BYTES,
  PUNCH_REQUEST_WITH_GRANT_BYTES,
  RELAY,
  RELAY_BYTES,
  rewriteToDeliver,
  rewriteToDeliverDest,
  SECOND_ID_AT,
  SYNC,
  SYNC_BYTES,
  SYNC_COUNT_AT,
  SYNC_TRAILER_BYTES,
  writeAddressMessage,
} from "../protocol.ts";
import {
  DISCOVERS,
  dropOffset,
  GOSSIP_RECEIVED,
  GOSSIP_REJECTED_AT,
  GOSSIP_REJECTIONS,
  type GossipRejection,
  grantColumn,
  KEYS_REFUSED,
  malformedColumn,
  PUNCHES_BRIDGED,
  RECEIVED_AT,
  REFUSAL_REASONS,
  REFUSED_AT,
  RELAY_DROPPED_AT,
  RELAY_NOT_FOUND,
  REPLY_DROPPED_AT,
} from "../shared/counters.ts";
import { DropLog, nodeDrop } from "../shared/drops.ts";
import { RELAY_LIMIT } from "../shared/limits.ts";
import { LocalAddresses } from "../shared/local-addresses.ts";
import {
  CLOCK_S,
  GRANTS_REQUIRED,
  LAST_REJECTED_SOURCE,
  LAST_REJECTION,
  STRANGERS_BELIEVED,
} from "../shared/memory.ts";
import { HELD, KEY_REFUSED, NODE_LIMIT, type NodeTable } from "../shared/nodes.ts";
import { isLearned, PeerTable } from "../shared/peers.ts";
import type { PunchWatch } from "../shared/punch-watch.ts";
import { RouteTable } from "../shared/routes.ts";
import { IS_BRIDGED, IS_PEER, WANTS_DEST } from "../shared/slots.ts";
import { Admission, DISCOVER_BREAKER, PUNCH_BREAKER, RELAY_BREAKER } from "./admission.ts";
import { GossipAllowance } from "./gossip-allowance.ts";
import { Replies, type ReplyParts } from "./replies.ts";
import { TO_NODE, TO_PEER } from "./runs.ts";
import type { Sender } from "./sender.ts";

const MALFORMED_SHORT = malformedColumn("short");
const MALFORMED_UNKNOWN_TYPE = malformedColumn("unknown_type");
const MALFORMED_NOT_FOR_BEACON = malformedColumn("not_for_beacon");
const MALFORMED_NO_SOURCE_PORT = malformedColumn("no_source_port");
const DROP_CONTENDED = RELAY_DROPPED_AT + dropOffset("contended");
const DROP_FORGED_SENDER = RELAY_DROPPED_AT + dropOffset("forged_sender");
const DROP_BRIDGE_FULL = dropOffset("bridge_full");
// Why packets were dropped, for who asks after their nodes.
const NOT_FOUND = nodeDrop("not_found");
const CONTENDED = nodeDrop("contended");
const FORGED_SENDER = nodeDrop("forged_sender");
const BRIDGE_FULL = nodeDrop("bridge_full");
const RELAY_LIMITED = nodeDrop("relay_limit");
const RELAY_ADDRESS_LIMITED = nodeDrop("relay_address_limit");
const RELAY_OFF = nodeDrop("relay_off");
const PUNCH_LIMITED = nodeDrop("punch_limit");
const PUNCH_OFF = nodeDrop("punch_off");
const DISCOVER_OFF = nodeDrop("discover_off");
const NEW_NODE_LIMITED = nodeDrop("new_node_limit");
const ENDPOINT_HELD = nodeDrop("endpoint_hold");
const DENIED_ENDPOINT = nodeDrop("denied_endpoint");
/** By result of NodeTable.record, from NODE_LIMIT on. */
const NOT_RECORDED = [nodeDrop("node_limit"), nodeDrop("shard_full"), CONTENDED];
const GRANT_MISSING = grantColumn("missing");
const GRANT_OVERLOAD = grantColumn("overload");
const REFUSED_DENIED_ENDPOINT = REFUSED_AT + REFUSAL_REASONS.indexOf("denied_endpoint");

/** Flags of destinations that get a Relay with its 9-byte head, not a RelayDeliver. */
const KEEPS_HEAD = WANTS_DEST | IS_PEER;

/** Where the packets of a batch come from. */
export interface PacketSource {
  /** Copies the sender's endpoint of message m, without local address and flags. */
  readSource(m: number, endpoint: Int32Array): void;
  /** As ReceiveBatch.readLocalAddress. */
  readLocalAddress(m: number, address: Int32Array): boolean;
}

/** Where messages go that leave this thread by another way than the kernel's. */
export interface MessageTaker {
  /**
   * @param label ENDPOINT_WORDS words: whom the message came from, or, in the first, the node that
   * it is for
   * @param packets where the message is, from `from` on
   * @returns false if there was no room
   */
  put(label: Int32Array, packets: DataView, from: number, bytes: number): boolean;
}

/** What a handler works with. */
export interface HandlerParts extends ReplyParts {
  readonly beaconId: number;
  readonly source: PacketSource;
  readonly clock: Clock;
  /** Takes the gossip of peers. */
  readonly gossip: MessageTaker;
  /** Takes frames for nodes behind the WebSocket bridge. */
  readonly frames: MessageTaker;
  /** Takes punch requests whose grants are to be verified. */
  readonly grants: MessageTaker;
}

export class PacketHandler {
  /**
   * The node that the packets come from, by proof of its key; 0 for datagrams, which anybody may
   * have sent. A proven node sends in its own name alone, is answered through the bridge, and has
   * no endpoint that could be recorded or told to others.
   */
  #provenId = 0;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  /** Endpoints being worked on: whom a packet came from, and whom it concerns. */
  readonly #source = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
  readonly #target = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
  /** The local address that a packet was sent to. */
  readonly #local = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
  /** Slot and version of the endpoint in `#target`; -1 for none. */
  #targetSlot = -1;
  #targetVersion = -1;
  /** Last Relay's destination, its run (-1: none to join), and the message it holds up to. */
  #burstDestId = 0;
  #burstRun = -1;
  #burstEnd = 0;
  /** Keeps the compiler from leaving out loads. */
  #touched = 0;
  /** Message of this batch whose source was looked up last, and its peer; -1 for none. */
  #peerCheckedMessage = -1;
  #fromPeer = -1;
  /** Packets of this message. */
  #messagePackets = 1;
  /** Message of this batch that the relay limit admitted last, and its packets left. */
  #allowedMessage = -1;
  #allowance = 0;

  readonly #beaconId: number;
  readonly #nodes: NodeTable;
  readonly #peers: PeerTable;
  readonly #routes: RouteTable;
  readonly #locals: LocalAddresses;
  readonly #packetSource: PacketSource;
  readonly #sender: Sender;
  readonly #admission: Admission;
  readonly #replies: Replies;
  readonly #punchWatch: PunchWatch;
  readonly #drops: DropLog;
  readonly #gossip: MessageTaker;
  readonly #gossipAllowance: GossipAllowance;
  readonly #strangersBelieved: number;
  readonly #frames: MessageTaker;
  readonly #grants: MessageTaker;
  /** The label of frames: the node that they are for. */
  readonly #frameLabel = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
  readonly #words: Int32Array;
  /** The word that is not 0 while punch requests need grants. */
  readonly #grantsRequired: number;
  readonly #threadWords: number;
  readonly #counters: Float64Array;
  readonly #row: number;

  constructor(parts: HandlerParts) {
    this.#view = new DataView(parts.packets.buffer);
    this.#bytes = new Uint8Array(parts.packets.buffer);
    this.#beaconId = parts.beaconId;
    this.#nodes = parts.nodes;
    this.#peers = new PeerTable(parts.memory);
    this.#routes = new RouteTable(parts.memory);
    this.#locals = new LocalAddresses(parts.memory);
    this.#packetSource = parts.source;
    this.#sender = parts.sender;
    this.#admission = new Admission(parts.memory, parts.counterRow, parts.clock);
    this.#replies = new Replies(parts, this.#admission, () => this.#send());
    this.#punchWatch = this.#replies.punchWatch;
    this.#drops = new DropLog(parts.memory, parts.counterRow);
    this.#gossip = parts.gossip;
    this.#gossipAllowance = new GossipAllowance(parts.clock);
    this.#strangersBelieved = parts.memory.rulesAt + STRANGERS_BELIEVED;
    this.#frames = parts.frames;
    this.#grants = parts.grants;
    this.#grantsRequired = parts.memory.rulesAt + GRANTS_REQUIRED;
    this.#words = parts.memory.words;
    this.#threadWords = parts.threadWords;
    this.#counters = parts.memory.counters;
    this.#row = parts.counterRow;
  }

  /** The packets that follow come from this proven node, each in a message of its own. */
  speaksFor(nodeId: number): void {
    this.#provenId = nodeId;
    this.#allowedMessage = -1;
  }

  /** Prefetches the slot of the packet at `at`, before the first packet of a batch. */
  touch(at: number): void {
    const isRelay = this.#view.getUint8(at) === RELAY;
    this.#touched ^= isRelay
      ? this.#nodes.touch(this.#view.getInt32(at + SECOND_ID_AT))
      : this.#nodes.touchToRecord(this.#view.getInt32(at + FIRST_ID_AT));
  }

  /** Handles message m, of `bytes` at `at`: packets of `segmentBytes`, the last shorter. */
  handleSegments(at: number, bytes: number, segmentBytes: number, m: number): void {
    const end = at + bytes;
    this.#messagePackets = Math.ceil(bytes / segmentBytes);
    for (let next = at; next < end; ) {
      this.handle(next, Math.min(segmentBytes, end - next), m);
      next = this.#joinSeries(next + segmentBytes, end, segmentBytes, m);
    }
    this.#messagePackets = 1;
  }

  /** Handles the packet of `bytes` (at least 1) at `at`, from message m of the batch. */
  handle(at: number, bytes: number, m: number): void {
    const type = this.#view.getUint8(at);
    if (type >= MESSAGE_NAMES.length) {
      this.#count(RECEIVED_AT);
      this.#count(MALFORMED_UNKNOWN_TYPE);
      return;
    }
    this.#count(RECEIVED_AT + type);
    switch (type) {
      case RELAY:
        if (bytes < RELAY_BYTES) this.#count(MALFORMED_SHORT);
        else if (this.#letsIn(at, m)) this.#relay(at, bytes, m);
        return;
      case DISCOVER:
      case DISCOVER_EX:
        if (bytes < DISCOVER_BYTES) this.#count(MALFORMED_SHORT);
        else this.#discover(at, bytes, type, m);
        return;
      case PUNCH_REQUEST:
        if (bytes < PUNCH_REQUEST_BYTES) this.#count(MALFORMED_SHORT);
        else this.#punch(at, bytes, m);
        return;
      case SYNC:
        this.#sync(at, bytes, m);
        return;
      case 0:
        this.#count(MALFORMED_UNKNOWN_TYPE);
        return;
      default:
        this.#count(MALFORMED_NOT_FOR_BEACON);
    }
  }

  /** Whether to admit the Relay at `at`. Packets of message m share a source: asked once. */
  #letsIn(at: number, m: number): boolean {
    const admission = this.#admission;
    if (admission.isBroken(RELAY_BREAKER)) {
      this.#noteDrop(at, RELAY_OFF);
      return false;
    }
    if (m !== this.#allowedMessage) {
      this.#allowedMessage = m;
      this.#allowance = this.#askFor(m);
    }
    if (this.#allowance > 0) {
      this.#allowance--;
      return true;
    }
    this.#noteDrop(
      at,
      admission.relayLimited() === RELAY_LIMIT ? RELAY_LIMITED : RELAY_ADDRESS_LIMITED,
    );
    return false;
  }

  /** Returns how many packets of message m the limits admit; peers are exempt, learned not. */
  #askFor(m: number): number {
    const packets = this.#messagePackets;
    if (!this.#admission.limitsRelays) return packets;
    this.#packetSource.readSource(m, this.#source);
    this.#peerCheckedMessage = m;
    this.#fromPeer = this.#sourcePeer();
    if (this.#fromPeer >= 0 && !isLearned(this.#fromPeer)) return packets;
    return this.#admission.relays(this.#provenId, this.#source, packets);
  }

  #relay(at: number, bytes: number, m: number): void {
    if (this.#provenId !== 0 && this.#view.getInt32(at + FIRST_ID_AT) !== this.#provenId) {
      this.#count(DROP_FORGED_SENDER);
      this.#drops.note(this.#view.getInt32(at + SECOND_ID_AT), this.#provenId, FORGED_SENDER);
      return;
    }
    const nodes = this.#nodes;
    const sender = this.#sender;
    const { runs } = sender;
    const destId = this.#view.getInt32(at + SECOND_ID_AT);
    // In a burst, each packet goes where the one before went: half the work of a merged packet is
    // saved.
    if (destId === this.#burstDestId && this.#burstRun >= 0 && m <= this.#burstEnd) {
      if (this.#join(this.#burstRun, at, bytes)) return;
    }
    let kind = TO_NODE;
    let slot = nodes.find(destId);
    let slotId = destId;
    if (slot < 0) {
      const peer = this.#mayForward(at, m) ? this.#routes.find(destId) : -1;
      if (peer < 0) {
        this.#count(RELAY_NOT_FOUND);
        this.#noteDrop(at, NOT_FOUND);
        return;
      }
      kind = TO_PEER;
      slot = this.#peers.slot(peer);
      slotId = this.#peers.slotId(peer);
    }
    if (sender.merging) {
      const run = runs.newest(slot, nodes.slots.version(slot));
      if (run >= 0 && this.#join(run, at, bytes)) {
        this.#remember(destId, run, m);
        return;
      }
    }
    if (runs.count === runs.capacity) this.#send();
    const version = this.#readTarget(slot, slotId);
    if (version < 0) {
      this.#count(DROP_CONTENDED);
      this.#noteDrop(at, CONTENDED);
      return;
    }
    const flags = this.#target[0]! & ENDPOINT_FLAGS_MASK;
    if ((flags & IS_BRIDGED) !== 0) {
      rewriteToDeliver(this.#view, at);
      this.#toBridge(destId, at + DELIVER_AT, bytes - DELIVER_AT, RELAY_DROPPED_AT);
      return;
    }
    // Once a run: who relays on instead of talking directly will start one, whoever else's packets
    // go the same way.
    const senderId = this.#view.getInt32(at + FIRST_ID_AT);
    if (this.#punchWatch.mayWatch(senderId, destId)) this.#punchWatch.relayed(senderId, destId);
    const cut = (flags & KEEPS_HEAD) === 0 ? DELIVER_AT : 0;
    const run = runs.start(kind, slot, version, flags, bytes - cut, sender.mergeBytesMax(slot));
    this.#rewrite(at, flags);
    sender.batch.setDestination(run, this.#target, 0);
    sender.batch.setPiece(run, 0, at + cut, bytes - cut);
    if (sender.merging) this.#remember(destId, run, m);
    else this.#burstRun = -1;
  }

  /** Lets the next Relay to this destination join the run; to a peer, from this source only. */
  #remember(destId: number, run: number, m: number): void {
    this.#burstDestId = destId;
    this.#burstRun = run;
    this.#burstEnd = (this.#sender.runs.flags[run]! & IS_PEER) === 0 ? MESSAGES_MAX : m;
  }

  /** Hands a packet to the bridge. @param drops where the counts of its kind's drops start */
  #toBridge(nodeId: number, at: number, bytes: number, drops: number): void {
    this.#frameLabel[0] = nodeId;
    if (this.#frames.put(this.#frameLabel, this.#view, at, bytes)) return;
    this.#count(drops + DROP_BRIDGE_FULL);
    // A RelayDeliver tells its sender; a reply has none.
    const senderId = drops === RELAY_DROPPED_AT ? this.#view.getInt32(at + FIRST_ID_AT) : 0;
    this.#drops.note(nodeId, senderId, BRIDGE_FULL);
  }

  /** Reads a slot's endpoint, unless it is the last one, unchanged. @returns as Slots.read */
  #readTarget(slot: number, id: number): number {
    const { slots } = this.#nodes;
    if (slot === this.#targetSlot && slots.version(slot) === this.#targetVersion)
      return this.#targetVersion;
    this.#targetVersion = slots.read(slot, id, this.#target, 0);
    this.#targetSlot = slot;
    return this.#targetVersion;
  }

  /** Puts a Relay into a run, if that can take one of its size. */
  #join(run: number, at: number, bytes: number): boolean {
    const { runs, batch } = this.#sender;
    const flags = runs.flags[run]!;
    const cut = (flags & KEEPS_HEAD) === 0 ? DELIVER_AT : 0;
    const place = runs.join(run, bytes - cut);
    if (place < 0) return false;
    this.#rewrite(at, flags);
    batch.setPiece(run, place, at + cut, bytes - cut);
    return true;
  }

  /**
   * Puts the Relays of `bytes` each, from `at` on, into the run of the one before, as long as they
   * go to the same destination: what a burst is made of, in the tightest of loops.
   * @param end where the message ends
   * @returns where the first packet is that did not join
   */
  #joinSeries(at: number, end: number, bytes: number, m: number): number {
    const run = this.#burstRun;
    if (run < 0 || m > this.#burstEnd || m !== this.#allowedMessage) return at;
    const { runs, batch } = this.#sender;
    const view = this.#view;
    const destId = this.#burstDestId;
    const flags = runs.flags[run]!;
    const cut = (flags & KEEPS_HEAD) === 0 ? DELIVER_AT : 0;
    const place = runs.packets[run]!;
    // A run takes packets of its own size in a series, so what is shorter than a Relay's head finds
    // no room.
    const room = Math.min(runs.room(run, bytes - cut), Math.floor((end - at) / bytes));
    const packetsMax = Math.min(room, this.#allowance);
    let packets = 0;
    let next = at;
    while (packets < packetsMax) {
      if (view.getUint8(next) !== RELAY || view.getInt32(next + SECOND_ID_AT) !== destId) break;
      this.#rewrite(next, flags);
      batch.setPiece(run, place + packets, next + cut, bytes - cut);
      packets++;
      next += bytes;
    }
    runs.joinSeries(run, packets, bytes - cut);
    this.#allowance -= packets;
    this.#counters[this.#row + RECEIVED_AT + RELAY]! += packets;
    return next;
  }

  /** Sends what has come of the batch's packets; another one begins. */
  flush(): void {
    this.#send();
    this.#peerCheckedMessage = -1;
    this.#allowedMessage = -1;
    this.#admission.nextBatch();
  }

  /** Sends what has come of the packets so far. */
  #send(): void {
    this.#burstRun = -1;
    this.#sender.flush();
  }

  /** Turns a Relay, in place, into what a destination with these flags gets. */
  #rewrite(at: number, flags: number): void {
    if ((flags & KEEPS_HEAD) === 0) rewriteToDeliver(this.#view, at);
    else if ((flags & IS_PEER) === 0) rewriteToDeliverDest(this.#view, at);
  }

  /**
   * Whether the Relay at `at`, of message m, may go on to a peer beacon. A Relay passes one beacon
   * at most on its way to the destination's: beacons that each believe the next one has a node
   * would pass it on for ever. So a peer's goes to nodes of this beacon only. Where gossip of
   * unlisted beacons is accepted, any source may be a beacon; there, the sender has to be a node at
   * that source.
   */
  #mayForward(at: number, m: number): boolean {
    if (this.#peerOf(m) >= 0) return false;
    if (this.#words[this.#strangersBelieved] === 0 || this.#provenId !== 0) return true;
    return this.#isSenderAt(this.#view.getInt32(at + FIRST_ID_AT), m);
  }

  /** Whether a node of this beacon is at the source of message m. */
  #isSenderAt(senderId: number, m: number): boolean {
    const slot = this.#nodes.find(senderId);
    if (slot < 0 || this.#readTarget(slot, senderId) < 0) return false;
    this.#packetSource.readSource(m, this.#source);
    let differs = (this.#target[0]! ^ this.#source[0]!) & ENDPOINT_PORT_MASK;
    for (let word = 1; word < ENDPOINT_WORDS; word++)
      differs |= this.#target[word]! ^ this.#source[word]!;
    return differs === 0;
  }

  /** The peer beacon that message m came from, -1 for none. */
  #peerOf(m: number): number {
    if (m !== this.#peerCheckedMessage) {
      this.#peerCheckedMessage = m;
      this.#packetSource.readSource(m, this.#source);
      this.#fromPeer = this.#sourcePeer();
    }
    return this.#fromPeer;
  }

  /** A proven node is none, though its proxy may share a peer's address. */
  #sourcePeer(): number {
    return this.#provenId === 0 ? this.#peers.find(this.#source, 0) : -1;
  }

  /** Hands gossip that may be believed to the main thread. */
  #sync(at: number, bytes: number, m: number): void {
    this.#packetSource.readSource(m, this.#source);
    const reason = this.#takeSync(at, bytes, m);
    if (reason === undefined) {
      this.#count(GOSSIP_RECEIVED);
      return;
    }
    const offset = GOSSIP_REJECTIONS.indexOf(reason);
    this.#count(GOSSIP_REJECTED_AT + offset);
    this.#words.set(this.#source, this.#threadWords + LAST_REJECTED_SOURCE);
    this.#words[this.#threadWords + LAST_REJECTION] = 1 + offset;
  }

  /** @returns why not */
  #takeSync(at: number, bytes: number, m: number): GossipRejection | undefined {
    if (bytes < SYNC_BYTES) return "short";
    const peer = this.#sourcePeer();
    const believesStrangers = this.#words[this.#strangersBelieved] !== 0;
    if (peer < 0 && (this.#provenId !== 0 || !believesStrangers)) return "unknown_peer";
    const syncBytes = SYNC_BYTES + 4 * this.#view.getUint16(at + SYNC_COUNT_AT);
    if (bytes < syncBytes) return "count";
    const beaconId = this.#beaconId;
    if (beaconId !== 0 && this.#view.getUint32(at + FIRST_ID_AT) === beaconId) return "own_id";
    const taken = Math.min(bytes, syncBytes + SYNC_TRAILER_BYTES);
    const namesInstance =
      peer >= 0 &&
      taken === syncBytes + SYNC_TRAILER_BYTES &&
      this.#peers.hasInstance(peer, this.#view, at + syncBytes);
    if (!this.#gossipAllowance.take(peer, namesInstance))
      return peer < 0 ? "stranger_limit" : "peer_limit";
    this.#readLocal(m);
    return this.#gossip.put(this.#source, this.#view, at, taken) ? undefined : "mailbox_full";
  }

  #discover(at: number, bytes: number, type: number, m: number): void {
    if (this.#admission.isBroken(DISCOVER_BREAKER)) {
      this.#drops.note(this.#view.getInt32(at + FIRST_ID_AT), 0, DISCOVER_OFF);
      return;
    }
    if (!this.#readSource(at, m)) return;
    this.#count(DISCOVERS);
    if (this.#provenId !== 0) {
      // In place of the Discover, which is read: a frame's room holds a reply (frames.ts).
      const replyBytes = writeAddressMessage(DISCOVER_REPLY, this.#source, 0, this.#bytes, at);
      this.#toBridge(this.#provenId, at, replyBytes, REPLY_DROPPED_AT);
      return;
    }
    const nodeId = this.#view.getInt32(at + FIRST_ID_AT);
    // Id 0 asks for its address before it has an id; a node that finds no room gets no answer.
    if (nodeId !== 0 && !this.#record(nodeId, type === DISCOVER_EX ? WANTS_DEST : 0)) return;
    if (nodeId !== 0 && bytes >= DISCOVER_WITH_KEY_BYTES) this.#keepKey(nodeId, at + NODE_KEY_AT);
    this.#replies.send(DISCOVER_REPLY, this.#source, this.#source);
  }

  /** Keeps the key of a node, for as long as grants are asked for. */
  #keepKey(nodeId: number, at: number): void {
    if (this.#words[this.#grantsRequired] === 0) return;
    if (this.#nodes.keepKey(nodeId, this.#source, this.#view, at) === KEY_REFUSED)
      this.#count(KEYS_REFUSED);
  }

  #punch(at: number, bytes: number, m: number): void {
    if (this.#admission.isBroken(PUNCH_BREAKER)) {
      this.#noteDrop(at, PUNCH_OFF);
      return;
    }
    if (!this.#readSource(at, m)) return;
    if (this.#provenId !== 0) {
      this.#count(PUNCHES_BRIDGED);
      return;
    }
    if (!this.#admission.punch(this.#source)) {
      this.#noteDrop(at, PUNCH_LIMITED);
      return;
    }
    const requesterId = this.#view.getInt32(at + FIRST_ID_AT);
    const targetId = this.#view.getInt32(at + SECOND_ID_AT);
    // The requester's address may be new: a symmetric NAT gives each socket another port. Whether
    // there is room for it in the table or not, both ends can be told.
    if (requesterId !== 0) this.#record(requesterId, -1);
    const needsGrant = this.#words[this.#grantsRequired] !== 0;
    if (needsGrant && bytes < PUNCH_REQUEST_WITH_GRANT_BYTES) {
      this.#count(GRANT_MISSING);
      return;
    }
    if (!this.#replies.findTarget(requesterId, targetId)) return;
    if (needsGrant) {
      if (!this.#handOver(at)) this.#count(GRANT_OVERLOAD);
    } else {
      this.#replies.introduce(this.#source, requesterId, targetId);
    }
  }

  /** Hands a PunchRequest to the main thread. @returns whether there is room for it */
  #handOver(at: number): boolean {
    return (
      this.#admission.grant() &&
      this.#grants.put(this.#source, this.#view, at, PUNCH_REQUEST_WITH_GRANT_BYTES)
    );
  }

  /** Reads message m's source. @returns false, counted, if it cannot or may not be sent to */
  #readSource(at: number, m: number): boolean {
    this.#packetSource.readSource(m, this.#source);
    if (hasNoPort(this.#source, 0)) {
      this.#count(MALFORMED_NO_SOURCE_PORT);
      return false;
    }
    // A proven node's is not sent to.
    if (this.#provenId !== 0 || !this.#admission.isDenied(this.#source)) {
      this.#readLocal(m);
      return true;
    }
    this.#count(REFUSED_DENIED_ENDPOINT);
    this.#drops.note(this.#view.getInt32(at + FIRST_ID_AT), 0, DENIED_ENDPOINT);
    return false;
  }

  /** Notes in the source which local address message m was sent to. */
  #readLocal(m: number): void {
    if (this.#packetSource.readLocalAddress(m, this.#local))
      setLocalNumber(this.#source, 0, this.#locals.numberOf(this.#local));
  }

  /**
   * Records that a node is where this message came from, as far as the limits let it.
   * @returns false if there was no room for it
   */
  #record(nodeId: number, flags: number): boolean {
    const nodes = this.#nodes;
    const admission = this.#admission;
    if (admission.limitsNewNodes && nodes.find(nodeId) < 0 && !admission.newNode(this.#source)) {
      this.#drops.note(nodeId, 0, NEW_NODE_LIMITED);
      return true;
    }
    this.#burstRun = -1;
    const nowS = this.#words[CLOCK_S]!;
    let result = nodes.record(nodeId, this.#source, 0, flags, nowS, admission.endpointHoldS);
    if (result === HELD) {
      if (admission.heldShadowed()) result = nodes.record(nodeId, this.#source, 0, flags, nowS);
      else this.#drops.note(nodeId, 0, ENDPOINT_HELD);
    }
    if (result < NODE_LIMIT) return true;
    this.#count(REFUSED_AT + result - NODE_LIMIT);
    this.#drops.note(nodeId, 0, NOT_RECORDED[result - NODE_LIMIT]!);
    return false;
  }

  /** Notes that the Relay or PunchRequest at `at` was dropped: whose it is, and whom it is for. */
  #noteDrop(at: number, reason: number): void {
    this.#drops.note(
      this.#view.getInt32(at + SECOND_ID_AT),
      this.#view.getInt32(at + FIRST_ID_AT),
      reason,
    );
  }

  #count(column: number): void {
    this.#counters[this.#row + column]!++;
  }
}
