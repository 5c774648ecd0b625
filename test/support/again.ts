/** Repeats a call while a worker holds the lock: the main thread never waits for one. */
export function again<T>(call: () => T, contended: T): T {
  for (let left = 1_000_000; left > 0; left--) {
    const result = call();
    if (result !== contended) return result;
  }
  throw new Error("a worker never releases the lock");
}
