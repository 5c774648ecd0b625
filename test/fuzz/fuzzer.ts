/**
 * Runs cases of one target: new ones, and variations of those that reached what none had reached
 * before.
 */
import { Random } from "../e2e/support/random.ts";
import { Choices } from "./choices.ts";
import { mutateBytes } from "./mutate.ts";
import type { OpenTarget, Seen, Target } from "./target.ts";

/** Cases that are kept to be varied. */
const CORPUS_MAX = 4096;
/** Outcomes that are told apart: a bound for targets that find ever new names for them. */
const OUTCOMES_MAX = 10_000;
const CHANGES_MAX = 6;
/** How often a failed case is made smaller and run again. */
const SHRINKS_MAX = 3000;
/** Time after which signals are listened to. */
const TURN_MS = 50;

export interface FuzzLimits {
  readonly casesMax: number;
  readonly msMax: number;
  /** Ends it early. */
  readonly signal?: AbortSignal;
}

export interface Failure {
  readonly message: string;
  /** The case, as small as it could be made and as `replay` takes it. */
  readonly choices: string;
  /** How many cases went before it. */
  readonly cases: number;
  /** It fails by itself, not only behind the cases before it. */
  readonly repeats: boolean;
}

export interface FuzzResult {
  readonly target: string;
  readonly seed: number;
  readonly cases: number;
  readonly seconds: number;
  /** How many cases reached each. */
  readonly outcomes: Readonly<Record<string, number>>;
  readonly kept: number;
  readonly failure?: Failure;
}

/** Outcomes that were reached, and how often. */
class Outcomes implements Seen {
  readonly counts = new Map<string, number>();
  hasNew = false;

  outcome(label: string): void {
    const count = this.counts.get(label);
    if (count === undefined) {
      if (this.counts.size === OUTCOMES_MAX) return;
      this.hasNew = true;
    }
    this.counts.set(label, (count ?? 0) + 1);
  }

  note(): void {}
}

/** Runs cases until a limit is reached or one fails. The same seed brings the same cases. */
export async function fuzz(target: Target, seed: number, limits: FuzzLimits): Promise<FuzzResult> {
  const random = new Random(seed);
  const choices = new Choices();
  const outcomes = new Outcomes();
  const corpus: Uint8Array<ArrayBuffer>[] = [];
  const open = target.open();
  const beganMs = performance.now();
  let turnMs = beganMs;
  let cases = 0;
  let failure: Failure | undefined;
  try {
    while (cases < limits.casesMax) {
      const bytes = nextCase(random, target.choiceBytes, corpus);
      try {
        const checking = open.check(choices.load(bytes), outcomes);
        if (checking !== undefined) await checking;
      } catch (error) {
        failure = await failureOf(target, bytes, error, cases);
        break;
      }
      cases++;
      if (outcomes.hasNew) {
        outcomes.hasNew = false;
        if (corpus.length < CORPUS_MAX) corpus.push(bytes);
      }
      if ((cases & 15) === 0 && performance.now() - turnMs > TURN_MS) {
        await new Promise(setImmediate);
        turnMs = performance.now();
        if (limits.signal?.aborted || turnMs - beganMs >= limits.msMax) break;
      }
    }
  } finally {
    open.close?.();
  }
  return {
    target: target.name,
    seed,
    cases,
    seconds: (performance.now() - beganMs) / 1000,
    outcomes: Object.fromEntries([...outcomes.counts].sort(([a], [b]) => (a < b ? -1 : 1))),
    kept: corpus.length,
    ...(failure && { failure }),
  };
}

function nextCase(
  random: Random,
  bytesMax: number,
  corpus: readonly Uint8Array<ArrayBuffer>[],
): Uint8Array<ArrayBuffer> {
  if (corpus.length === 0 || random.below(2) === 0)
    return randomBytes(random, 1 + random.below(bytesMax));
  const kept = corpus[random.below(corpus.length)]!;
  const changed = mutateBytes(new Choices().load(randomBytes(random, 256)), kept, CHANGES_MAX);
  return changed.length > bytesMax ? changed.slice(0, bytesMax) : changed;
}

function randomBytes(random: Random, length: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < words.length; i++) words[i] = random.word();
  return new Uint8Array(words.buffer, 0, length);
}

async function failureOf(
  target: Target,
  bytes: Uint8Array<ArrayBuffer>,
  error: unknown,
  cases: number,
): Promise<Failure> {
  const first = await messageOf(target, bytes);
  if (first === undefined)
    return {
      message: text(error),
      choices: Buffer.from(bytes).toString("hex"),
      cases,
      repeats: false,
    };
  const small = await smaller(target, bytes);
  const message = (await messageOf(target, small)) ?? first;
  return { message, choices: Buffer.from(small).toString("hex"), cases, repeats: true };
}

/** Cuts pieces out and sets bytes to 0, as long as the case fails. */
async function smaller(
  target: Target,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  let best = bytes;
  let tries = 0;
  const improves = async (candidate: Uint8Array<ArrayBuffer>): Promise<boolean> => {
    if (++tries > SHRINKS_MAX || (await messageOf(target, candidate)) === undefined) return false;
    best = candidate;
    return true;
  };
  for (let piece = best.length; piece >= 1; piece = Math.floor(piece / 2)) {
    for (let at = best.length - piece; at >= 0; at -= piece) {
      const without = new Uint8Array(best.length - piece);
      without.set(best.subarray(0, at));
      without.set(best.subarray(at + piece), at);
      await improves(without);
    }
  }
  for (let at = 0; at < best.length; at++) {
    if (best[at] === 0) continue;
    const zeroed = best.slice();
    zeroed[at] = 0;
    await improves(zeroed);
  }
  return best;
}

/**
 * Runs one case by itself.
 * @returns how it fails, with what it is about, or undefined if it does not
 */
async function messageOf(target: Target, bytes: Uint8Array): Promise<string | undefined> {
  const notes: string[] = [];
  const open: OpenTarget = target.open();
  try {
    await open.check(new Choices().load(bytes), {
      outcome() {},
      note: (note) => notes.push(note()),
    });
    return undefined;
  } catch (error) {
    return [text(error), ...notes].join("\n  ");
  } finally {
    open.close?.();
  }
}

const text = (error: unknown): string =>
  error instanceof Error ? (error.stack ?? error.message) : String(error);

/** Runs the case that a failure's `choices` name. @returns how it fails, or undefined */
export function replay(target: Target, choices: string): Promise<string | undefined> {
  return messageOf(target, new Uint8Array(Buffer.from(choices, "hex")));
}
