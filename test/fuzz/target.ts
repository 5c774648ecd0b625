/** What can be fuzzed: parsers and whatever else meets bytes of strangers. */
import type { Choices } from "./choices.ts";

export interface Target {
  readonly name: string;
  /** What is fuzzed, in a line for the help text. */
  readonly about: string;
  /** Bytes of choices that a case has at most. */
  readonly choiceBytes: number;
  open(): OpenTarget;
}

/** A target and what it holds; cases leave nothing in it that another would notice. */
export interface OpenTarget {
  /** Runs the case that the choices make. @throws Error when something is not as it must be */
  check(choices: Choices, seen: Seen): void | Promise<void>;
  close?(): void;
}

/** What a case tells of itself. */
export interface Seen {
  /**
   * Something happened that cases are told apart by: a way through the code. One that reaches a new
   * one is kept and varied.
   */
  outcome(label: string): void;
  /** What the case is about, for whoever reads of its failure; not called otherwise. */
  note(text: () => string): void;
}

export function fail(message: string): never {
  throw new Error(message);
}

/** The values must be the same. @param what they are, for the message */
export function mustBe(what: string, actual: unknown, expected: unknown): void {
  if (actual !== expected) fail(`${what}: ${String(actual)}, must be ${String(expected)}`);
}
