/**
 * Bounds for loops in tests that a wrong program would never leave. The runner's own limit cannot
 * end a loop that does not yield.
 */
import { PATIENCE_MS } from "./limits.ts";

/**
 * @returns a check for each round of a loop, which throws an Error that names `what` once time is
 * up
 */
export function patience(what: string, limitMs = PATIENCE_MS): () => void {
  const deadlineMs = performance.now() + limitMs;
  return () => {
    if (performance.now() > deadlineMs) throw new Error(`did not happen in ${limitMs} ms: ${what}`);
  };
}

/**
 * Repeats a step until it returns false.
 * @returns how often it returned true
 * @throws Error, naming `what`, if that goes on
 */
export function repeatWhile(step: () => boolean, what: string, limitMs = PATIENCE_MS): number {
  const check = patience(what, limitMs);
  let rounds = 0;
  for (; step(); rounds++) check();
  return rounds;
}
