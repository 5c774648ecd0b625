/**
 * What an operator can switch off while the beacon runs, each part by itself: handling Discovers,
 * punch requests and relays, and the WebSocket bridge. All are on at start, whatever they were
 * before.
 */
import type { Logger } from "pino";
import { BREAKERS } from "../../shared/counters.ts";
import { BREAKER_BITS, type SharedMemory } from "../../shared/memory.ts";

const BRIDGE = "bridge";

/** What is switched as a whole. */
export interface Switchable {
  readonly isOff: boolean;
  switch(on: boolean): void;
}

/** By name. */
export type BreakerStates = Readonly<Record<string, "on" | "off">>;

export class Breakers {
  /** Once it is there. */
  bridge: Switchable | undefined;

  constructor(
    private readonly memory: SharedMemory,
    private readonly log: Logger,
  ) {}

  get states(): BreakerStates {
    const states = BREAKERS.map(
      (name, bit) => [name, (this.#bits >>> bit) & 1 ? "off" : "on"] as const,
    );
    const { bridge } = this;
    return Object.fromEntries(bridge ? [...states, [BRIDGE, bridge.isOff ? "off" : "on"]] : states);
  }

  /** @param who asks for it, for the log @returns false if there is nothing of that name */
  switch(name: string, on: boolean, who: string): boolean {
    const bit = (BREAKERS as readonly string[]).indexOf(name);
    if (bit >= 0) this.#bits = on ? this.#bits & ~(1 << bit) : this.#bits | (1 << bit);
    else if (name === BRIDGE && this.bridge) this.bridge.switch(on);
    else return false;
    this.log.warn(`${name} is switched ${on ? "on" : "off"} by ${who}`);
    return true;
  }

  /** Takes over the states of the old process. */
  adopt(states: BreakerStates): void {
    for (const [name, state] of Object.entries(states))
      if (this.states[name] !== state) this.switch(name, state === "on", "the old process");
  }

  get #bits(): number {
    return this.memory.words[this.#word]!;
  }

  /** Workers look at it with each packet. */
  set #bits(bits: number) {
    Atomics.store(this.memory.words, this.#word, bits);
  }

  get #word(): number {
    return this.memory.rulesAt + BREAKER_BITS;
  }
}
