/**
 * Rounds: what is compared runs beside each other, as fresh processes each round, and the order
 * turns.
 */
export interface Contestant {
  stop(): Promise<void>;
}

/**
 * Starts contestants, measures and stops them, `rounds` times. Their order turns each round, so
 * that none always goes first.
 * @param start how each contestant is started
 * @param measure gets them in the order of `start`, and in the order of this round
 */
export async function eachRound<T extends Contestant>(
  rounds: number,
  start: readonly (() => Promise<T>)[],
  measure: (contestants: readonly T[], turn: readonly T[], round: number) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const order = start.map((_, i) => (round % 2 === 0 ? i : start.length - 1 - i));
    const started: T[] = [];
    try {
      for (const i of order) started.push(await start[i]!());
      await measure(
        start.map((_, i) => started[order.indexOf(i)]!),
        started,
        round,
      );
    } finally {
      for (const contestant of started) await contestant.stop();
    }
  }
}
