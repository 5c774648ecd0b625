/** Waits for events. A wait costs nothing once the event is there, so the limits are generous. */
import { PATIENCE_MS } from "../../support/limits.ts";

export { PATIENCE_MS, TEST_TIMEOUT_MS } from "../../support/limits.ts";

const POLL_MS = 5;

/**
 * Polls until `read` yields something other than undefined and false.
 * @throws Error, naming `what`, if it never does
 */
export async function until<T>(
  what: string,
  read: () => T | Promise<T>,
  timeoutMs = PATIENCE_MS,
): Promise<Exclude<T, undefined | false>> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = await read();
    if (value !== undefined && value !== false) return value as Exclude<T, undefined | false>;
    if (performance.now() > deadline) throw new Error(`did not happen in ${timeoutMs} ms: ${what}`);
    await Bun.sleep(POLL_MS);
  }
}

/**
 * Polls until `read` yields what `expected` is, and says what it yielded instead if it never does.
 */
export async function untilEqual<T>(
  what: string,
  read: () => T | Promise<T>,
  expected: T,
): Promise<void> {
  let last: T | undefined;
  try {
    await until(what, async () => {
      last = await read();
      return Bun.deepEquals(last, expected);
    });
  } catch {
    throw new Error(`${what}: is ${JSON.stringify(last)}, not ${JSON.stringify(expected)}`);
  }
}

/** `promise`, or an error that names `what` if it takes too long. */
export async function inTime<T>(
  what: string,
  promise: Promise<T>,
  timeoutMs = PATIENCE_MS,
): Promise<T> {
  let timer: Timer | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`did not happen in ${timeoutMs} ms: ${what}`)),
      timeoutMs,
    );
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
