/** Limits of waits, apart from what waits: files without timers import these alone. */

/** Limit for one event: a busy machine delays an event by seconds, never by a minute. */
export const PATIENCE_MS = 60_000;

/** Limit for one test, longer than the limit for one event: the failure names the event. */
export const TEST_TIMEOUT_MS = 2 * PATIENCE_MS;
