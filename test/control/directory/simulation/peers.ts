/**
 * The mesh as the directory sees it: names get peer numbers after a while, lose them, and change
 * them.
 */
import type { FleetPeers } from "../../../../src/control/directory/parts.ts";
import { PEERS_MAX } from "../../../../src/shared/memory.ts";
import type { Chance } from "./chance.ts";
import type { Owner, Timeline } from "./timeline.ts";

const FOLLOW_MS_MAX = 50;

export interface SimulatedPeersParts {
  readonly timeline: Timeline;
  readonly chance: Chance;
  readonly owner: Owner;
  /** How long a name takes to be resolved, at most. */
  readonly resolveMs: number;
  /** Settles when no route leads to this number any more. */
  readonly forget: (number: number) => Promise<void>;
  /** A peer got this number, and what it says by gossip is believed. */
  readonly began: (number: number) => void;
}

export class SimulatedPeers implements FleetPeers {
  readonly #numbers = new Map<string, number>();
  readonly #free: number[] = Array.from({ length: PEERS_MAX }, (_, i) => i);
  #wanted: ReadonlySet<string> = new Set();

  constructor(private readonly parts: SimulatedPeersParts) {}

  setFleet(names: readonly string[]): void {
    const { timeline, chance, owner, resolveMs } = this.parts;
    this.#wanted = new Set(names);
    for (const name of names)
      if (!this.#numbers.has(name))
        timeline.after(chance.unit() * resolveMs, owner, () => this.#resolve(name));
    for (const name of this.#numbers.keys())
      if (!this.#wanted.has(name))
        timeline.after(chance.unit() * resolveMs, owner, () => this.#lose(name));
  }

  numberOf(name: string): number | undefined {
    return this.#numbers.get(name);
  }

  follow(_number: number): Promise<void> {
    const { timeline, chance, owner } = this.parts;
    return new Promise((resolve) => timeline.after(chance.unit() * FOLLOW_MS_MAX, owner, resolve));
  }

  unfollow(_number: number): void {}

  notFollowed(): number {
    return 0;
  }

  heard(_number: number): void {}

  get names(): readonly string[] {
    return [...this.#numbers.keys()];
  }

  /** It is a peer of another number from now on. */
  renumber(name: string): void {
    const number = this.#numbers.get(name);
    if (number === undefined) return;
    this.#numbers.delete(name);
    this.#release(number);
    if (this.parts.chance.is(0.5)) this.#resolve(name);
    else
      this.parts.timeline.after(this.parts.chance.unit() * 5000, this.parts.owner, () =>
        this.#resolve(name),
      );
  }

  /** Each has the other's number from now on. */
  swap(one: string, other: string): void {
    const [first, second] = [this.#numbers.get(one), this.#numbers.get(other)];
    if (first === undefined || second === undefined) return;
    this.#numbers.set(one, second);
    this.#numbers.set(other, first);
  }

  #resolve(name: string): void {
    if (!this.#wanted.has(name) || this.#numbers.has(name)) return;
    const number = this.#free.shift();
    if (number === undefined) return;
    this.#numbers.set(name, number);
    this.parts.began(number);
  }

  #lose(name: string): void {
    const number = this.#numbers.get(name);
    if (number === undefined || this.#wanted.has(name)) return;
    this.#numbers.delete(name);
    this.#release(number);
  }

  /** As the mesh does it: the number is another's once no route leads to it. */
  #release(number: number): void {
    void this.parts.forget(number).then(() => this.#free.push(number));
  }
}
