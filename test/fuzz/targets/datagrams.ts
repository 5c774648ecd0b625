/**
 * Datagrams of strangers, single and merged, through a worker's whole loop on a scripted kernel.
 */
import { AF_INET, SOL_UDP, UDP_GRO } from "../../../ffi/abi.ts";
import { ENDPOINT_WORDS, endpointFromName } from "../../../ffi/endpoint.ts";
import { EAGAIN } from "../../../ffi/errno.ts";
import { validateConfig } from "../../../src/config.ts";
import { Limits } from "../../../src/control/limits/limits.ts";
import { RelayLoop } from "../../../src/data/loop.ts";
import {
  DISCOVER,
  DISCOVER_REPLY,
  PUNCH_COMMAND,
  PUNCH_REQUEST,
  RELAY,
  RELAY_BYTES,
  RELAY_DELIVER,
  RELAY_DELIVER_DEST,
  SYNC,
} from "../../../src/protocol.ts";
import {
  BREAKERS,
  BROKEN_AT,
  COUNTER_ROW,
  LIMITED_AT,
  MALFORMED_AT,
  MALFORMED_REASONS,
  malformedColumn,
  RECEIVED_AT,
  RELAY_DROPPED_AT,
  RELAY_NOT_FOUND,
  RELAYED_LOCAL,
  RELAYED_TO_PEER,
} from "../../../src/shared/counters.ts";
import { RELAY_ADDRESS_LIMIT, RELAY_LIMIT } from "../../../src/shared/limits.ts";
import { MailboxReader } from "../../../src/shared/mailbox.ts";
import {
  BREAKER_BITS,
  CLOCK_S,
  FRAMES,
  GOSSIP,
  GRANTS,
  GRANTS_REQUIRED,
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  SharedMemory,
} from "../../../src/shared/memory.ts";
import { NodeTableOwner } from "../../../src/shared/nodes-owner.ts";
import { PeerTableOwner } from "../../../src/shared/peers-owner.ts";
import { RouteTableOwner } from "../../../src/shared/routes-owner.ts";
import {
  controlMessage,
  cut,
  hex,
  int32Bytes,
  type ReceivedMessage,
  ScriptedKernel,
} from "../../support/kernel.ts";
import type { Choices } from "../choices.ts";
import { mutateBytes } from "../mutate.ts";
import { fail, mustBe, type OpenTarget, type Seen, type Target } from "../target.ts";

const NODES_MAX = 40;
const MESSAGES_MAX = 4;
const SEGMENTS_MAX = 6;
/** Node ids: those of this beacon, of the peer, of the bridge, and of nobody. */
const IDS = [0, 1, 2, 3, 0x8000_0000, 0xffff_ffff, 77, 88, 404];
const REMOTE = 77;
const BRIDGED = 88;
const EVERY_CHECKED = 32;

/** struct sockaddr_in */
const name = (address: readonly number[], port: number) =>
  new Uint8Array([AF_INET, 0, port >> 8, port & 0xff, ...address, 0, 0, 0, 0, 0, 0, 0, 0]);
const PEER = name([10, 0, 0, 9], 9001);
const NOWHERE = [
  name([224, 0, 0, 1], 5000),
  name([255, 255, 255, 255], 5000),
  name([0, 0, 0, 0], 5000),
];
const SOURCES = [
  ...[1, 2, 3, 4].map((host) => name([10, 0, 0, host], 4000 + host)),
  name([10, 0, 0, 1], 4999),
  PEER,
  name([10, 0, 0, 5], 0),
  ...NOWHERE,
];
const NEVER_SENT_TO = new Set([...NOWHERE, name([10, 0, 0, 5], 0)].map(hex));
const MALFORMED_EMPTY = MALFORMED_AT + MALFORMED_REASONS.indexOf("empty");
const MALFORMED_TRUNCATED = malformedColumn("truncated");

export const DATAGRAMS: Target = {
  name: "datagrams",
  about: "datagrams, single and merged, through a worker's loop",
  choiceBytes: 220,
  open: () => new Datagrams(),
};

class Datagrams implements OpenTarget {
  readonly #memory = new SharedMemory({ workers: 1, nodesMax: NODES_MAX, routesMax: 10 });
  readonly #limits: Limits;
  readonly #nodes: NodeTableOwner;
  readonly #kernel = new ScriptedKernel(EAGAIN);
  readonly #loop: RelayLoop;
  readonly #boxes: readonly MailboxReader[];
  #nowNs = 1e12;
  #cases = 0;

  constructor() {
    const memory = this.#memory;
    memory.words[CLOCK_S] = 1;
    memory.words[HASH_SECRET] = 0x7e57;
    this.#limits = new Limits(memory);
    this.#nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
    const peer = new Int32Array(ENDPOINT_WORDS);
    endpointFromName(AF_INET, new Int32Array(PEER.slice().buffer), 0, peer, 0);
    new RouteTableOwner(memory).claim(REMOTE, new PeerTableOwner(memory).add(peer, 0));
    this.#nodes.bridge(BRIDGED, 1);
    const options = {
      worker: 0,
      fd: 5,
      family: AF_INET,
      beaconId: 7,
      batchMax: MESSAGES_MAX,
      offload: true,
    } as const;
    this.#loop = new RelayLoop(this.#kernel, memory, options, { nowNs: () => this.#nowNs });
    this.#boxes = [GOSSIP, FRAMES, GRANTS].map((kind) => new MailboxReader(memory, kind, 0));
    this.#limits.configure(validateConfig({}), 0);
  }

  check(choices: Choices, seen: Seen): void {
    const memory = this.#memory;
    this.#nowNs += choices.below(4) * 1e8;
    if (choices.oneIn(16)) this.#change(choices);
    memory.words[CLOCK_S]! += choices.below(3) * 20;
    const messages = Array.from({ length: 1 + choices.below(MESSAGES_MAX) }, () =>
      messageOf(choices),
    );
    seen.note(() =>
      messages.map((one) => `${hex(one.name ?? new Uint8Array())} ${hex(one.bytes)}`).join("\n  "),
    );
    const before = memory.counters.slice(0, COUNTER_ROW);
    const kernel = this.#kernel;
    kernel.sent.length = kernel.sendCalls.length = kernel.receiveCalls.length = 0;
    kernel.receives.push(messages);
    if (!this.#loop.step()) fail("the loop ended");
    const after = memory.counters.slice(0, COUNTER_ROW);
    let taken = 0;
    for (const box of this.#boxes) {
      for (let mail = box.take(); mail !== undefined; mail = box.take()) taken++;
      box.release();
    }
    this.#checkCounts(before, after, messages, seen);
    this.#checkSent(messages, taken);
    if (++this.#cases % EVERY_CHECKED === 0) this.#checkTable();
  }

  /** Another configuration, and nodes that go. */
  #change(choices: Choices): void {
    const memory = this.#memory;
    const rate = () => choices.pick([0, 1, 3, 1e9]);
    this.#limits.configure(
      validateConfig({
        relayLimit: rate(),
        relayAddressLimit: rate(),
        punchSourceLimit: rate(),
        punchLimit: rate(),
        newNodeLimit: rate(),
        answerLimit: rate(),
        endpointHoldMs: choices.pick([0, 30_000]),
        limitsShadow: choices.oneIn(4),
        denyEndpoint: choices.oneIn(4) ? ["10.0.0.3"] : [],
      }),
      0,
    );
    memory.words[memory.rulesAt + BREAKER_BITS] = choices.oneIn(4) ? choices.byte() : 0;
    memory.words[memory.rulesAt + GRANTS_REQUIRED] = Number(choices.oneIn(3));
    this.#nodes.expire(0, 0, this.#nodes.slotsPerShard, memory.words[CLOCK_S]! - 60);
  }

  /** Every packet that came is counted once for what became of it. */
  #checkCounts(
    before: Float64Array,
    after: Float64Array,
    messages: readonly ReceivedMessage[],
    seen: Seen,
  ): void {
    const grew = (column: number) => after[column]! - before[column]!;
    for (let column = 0; column < COUNTER_ROW; column++) {
      if (grew(column) < 0) fail(`counter ${column} went down`);
      if (grew(column) > 0) seen.outcome(`counter ${column}`);
    }
    let packets = 0;
    for (const { bytes, control, name: source } of messages) {
      const segment = control ? new DataView(control.buffer).getInt32(16, true) : 0;
      if (bytes.length > 0)
        packets += segment > 0 && segment < bytes.length ? Math.ceil(bytes.length / segment) : 1;
      else if (source !== undefined) packets += 0;
    }
    let received = 0;
    for (let type = 0; type < 10; type++) received += grew(RECEIVED_AT + type);
    mustBe("packets by type", received + grew(MALFORMED_TRUNCATED), packets);
    mustBe(
      "empty datagrams",
      grew(MALFORMED_EMPTY),
      messages.filter(({ bytes }) => bytes.length === 0).length,
    );
    let relays = grew(RELAYED_LOCAL) + grew(RELAYED_TO_PEER) + grew(RELAY_NOT_FOUND);
    relays += grew(LIMITED_AT + RELAY_LIMIT) + grew(LIMITED_AT + RELAY_ADDRESS_LIMIT);
    relays += grew(BROKEN_AT + BREAKERS.indexOf("relay"));
    for (let reason = 0; reason < 8; reason++) relays += grew(RELAY_DROPPED_AT + reason);
    if (relays > grew(RECEIVED_AT + RELAY))
      fail(`${relays} relays accounted for, ${grew(RECEIVED_AT + RELAY)} came`);
  }

  /**
   * What leaves is an answer, or a relay that came, to each node in the order in which it came, and
   * goes where something may go.
   */
  #checkSent(messages: readonly ReceivedMessage[], mails: number): void {
    const packets = messages.flatMap(packetsOf);
    const relays = packets.filter((packet) => packet[0] === RELAY && packet.length >= RELAY_BYTES);
    const datagrams = this.#kernel.sent.flatMap(cut);
    const answersMax = 2 * packets.length;
    if (datagrams.length + mails > answersMax + relays.length)
      fail(`${packets.length} packets became ${datagrams.length}`);
    const isTaken = relays.map(() => false);
    // by endpoint and node, as several nodes may be at one endpoint
    const last = new Map<string, number>();
    for (const { name: to, bytes } of datagrams) {
      if (NEVER_SENT_TO.has(to)) fail(`sent to ${to}`);
      switch (bytes[0]) {
        case DISCOVER_REPLY:
        case PUNCH_COMMAND:
          mustBe("bytes of an answer", bytes.length, 8);
          continue;
        case RELAY:
          mustBe("where a Relay goes on to", to, hex(PEER));
          break;
        case RELAY_DELIVER:
        case RELAY_DELIVER_DEST:
          break;
        default:
          fail(`sent what is no message of a beacon: ${hex(bytes)}`);
      }
      const place = (relay: Uint8Array) => `${to} ${hex(relay.subarray(5, 9))}`;
      const at = relays.findIndex(
        (relay, i) =>
          !isTaken[i] && isDeliveryOf(bytes, relay) && i > (last.get(place(relay)) ?? -1),
      );
      if (at < 0) fail(`sent to ${to} what did not come, or not in this order: ${hex(bytes)}`);
      isTaken[at] = true;
      last.set(place(relays[at]!), at);
    }
  }

  #checkTable(): void {
    const nodes = this.#nodes;
    if (nodes.size() > NODES_MAX) fail(`${nodes.size()} nodes`);
    let entries = 0;
    for (const { nodeId } of nodes.entries()) {
      entries++;
      if (nodeId === 0 || nodes.find(nodeId) < 0) fail(`node ${nodeId} is there and not found`);
    }
    mustBe("entries", entries, nodes.size());
  }
}

function messageOf(choices: Choices): ReceivedMessage {
  const source = choices.pick(SOURCES);
  if (choices.oneIn(4)) {
    const segments = Array.from({ length: 1 + choices.below(SEGMENTS_MAX) }, () =>
      packetOf(choices),
    );
    const segmentBytes = Math.max(1, choices.oneIn(8) ? choices.below(80) : segments[0]!.length);
    const bytes = new Uint8Array(Buffer.concat(segments));
    return {
      name: source,
      bytes,
      control: controlMessage(SOL_UDP, UDP_GRO, int32Bytes(segmentBytes)),
    };
  }
  return { name: source, bytes: packetOf(choices) };
}

function packetOf(choices: Choices): Uint8Array {
  const type = choices.pick([
    RELAY,
    RELAY,
    RELAY,
    DISCOVER,
    PUNCH_REQUEST,
    SYNC,
    8,
    8,
    0,
    2,
    4,
    6,
    9,
    10,
    255,
  ]);
  const id = () => {
    const value = choices.oneIn(8) ? choices.number() : choices.pick(IDS);
    return [value >>> 24, value >>> 16, value >>> 8, value];
  };
  const tailBytes = choices.pick([0, 1, 4, 32, 72, 72]);
  const packet = new Uint8Array([type, ...id(), ...id(), ...choices.bytes(tailBytes)]);
  if (type === SYNC && choices.oneIn(2)) packet.set([0, choices.below(8)], 5);
  return choices.oneIn(3) ? mutateBytes(choices, packet, 3) : packet;
}

/** The packets of a message, as the wire has them. */
function packetsOf({ bytes, control }: ReceivedMessage): Uint8Array[] {
  const segment = control ? new DataView(control.buffer).getInt32(16, true) : 0;
  if (segment <= 0 || segment >= bytes.length) return [bytes];
  return Array.from({ length: Math.ceil(bytes.length / segment) }, (_, i) =>
    bytes.subarray(i * segment, (i + 1) * segment),
  );
}

function isDeliveryOf(sent: Uint8Array, relay: Uint8Array): boolean {
  const [sentFrom, relayFrom] = sent[0] === RELAY_DELIVER ? [5, 9] : [1, 1];
  if (sent.length - sentFrom !== relay.length - relayFrom) return false;
  for (let i = 1; i < 5; i++) if (sent[i] !== relay[i]) return false;
  for (let i = 0; i < sent.length - sentFrom; i++)
    if (sent[sentFrom + i] !== relay[relayFrom + i]) return false;
  return true;
}
