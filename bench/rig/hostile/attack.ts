/**
 * What an attack is: one shape for all, so that the run treats them alike. `start` is called in the
 * attacker's process, everything else in the run's.
 */
import type { WireAddress } from "../../../test/e2e/support/wire.ts";
import type { Growth } from "./growth.ts";
import type { StageName } from "./stage.ts";

/** What an attacker knows of those it attacks: everything. */
export interface Scene {
  readonly beacon: WireAddress;
  /** The beacon's peer, where there is one. */
  readonly peer: WireAddress;
  readonly peerId: number;
  readonly http: WireAddress;
  readonly bridge: WireAddress;
  /** Nodes that relay to each other. */
  readonly honestIds: readonly number[];
  /** Where those are that relay by UDP to others, which a PunchRequest tells. */
  readonly honestSenders: readonly WireAddress[];
  /** Nodes that are registered, and do not read what they get. */
  readonly sleepingIds: readonly number[];
  /** Nodes whose secret keys the attacker has: it may come to the bridge in their name. */
  readonly ownBridgedIds: readonly number[];
  readonly victim: Victim;
  readonly attackerAddress: string;
  /** The beacon over IPv6, and addresses of one /64 that are all the attacker's. */
  readonly beaconIPv6: WireAddress;
  readonly attackerNetwork: readonly string[];
  /** Packets that an attack of packets sends a second. */
  readonly packetsPerS: number;
  /** Connections that an attack of connections opens a second, and the most that it holds. */
  readonly connectionsPerS: number;
  readonly connectionsMax: number;
}

/** Somebody who asked for nothing. */
export interface Victim {
  readonly address: string;
  readonly ports: readonly number[];
}

/** An attack that goes on until it is stopped. */
export interface Assault {
  /** Ends it; nothing of it stays behind. */
  stop(): Promise<Effort>;
}

/** What an attacker did, and what it got for it. */
export interface Effort {
  /** "packets" or "connections". */
  readonly of: string;
  readonly count: number;
  /** On the wire, IP and UDP headers included; 0 for connections. */
  readonly bytes: number;
  /** Messages of the beacon that came to the attacker, by the number of their type. */
  readonly heard: Readonly<Record<number, number>>;
}

/** What came to somebody, IP and UDP headers included. */
export interface Received {
  readonly packets: number;
  readonly bytes: number;
}

/** All that is known after an attack. */
export interface Evidence {
  readonly effort: Effort;
  readonly victim: Received;
  /** Of the beacon's counters, meanwhile. */
  readonly growth: Growth;
  /** Packets that the beacon read meanwhile, honest ones too, by its own count. */
  readonly arrived: number;
  readonly attackedS: number;
}

/** Whether something that must hold does. */
export interface Verdict {
  readonly what: string;
  readonly holds: boolean;
  /** No excuse helps: without it the attack did not take place. */
  readonly isNeeded?: true;
}

export interface Attack {
  readonly name: string;
  /** What the attacker does, for people. */
  readonly does: string;
  readonly stage: StageName;
  /** Whether it is part of the smoke; it is unless it says no. */
  readonly inSmoke?: boolean;
  /** Flags of the beacon beside those that all have. */
  readonly flags?: readonly string[];
  /** Limits of the beacon that must have dropped something. */
  readonly limits?: readonly string[];
  /** Other counters of the beacon that must have grown: how their samples begin. */
  readonly counts?: readonly string[];
  /**
   * Whether it goes on for longer than a node's endpoint is held, and a peer's routes: only who is
   * heard again stays known.
   */
  readonly isLong?: true;
  /** What an honest newcomer must still be able to do while it goes on. */
  readonly newcomer?: Newcomer;
  /** It is no attack on the beacon, which gets none of its packets. */
  readonly missesBeacon?: true;
  /** Why honest nodes may suffer under it all the same: it is measured, and no bar is held. */
  readonly excuse?: string;
  start(scene: Scene): Assault | Promise<Assault>;
  /** What else must hold. */
  judge?(evidence: Evidence): readonly Verdict[];
}

/** Registers and is reached; gets a PunchCommand; comes to the bridge and is reached. */
export type Newcomer = "joins" | "punches" | "connects";
