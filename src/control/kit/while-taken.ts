/** Ports that another process is about to release. */

const RETRY_MS = 5;

/**
 * Opens a port, and retries while it is taken.
 * @throws what `open` throws: EADDRINUSE once `patienceMs` is over, any other error at once
 */
export async function whileTaken<T>(patienceMs: number, open: () => T): Promise<T> {
  for (const untilMs = performance.now() + patienceMs; ; await Bun.sleep(RETRY_MS)) {
    try {
      return open();
    } catch (error) {
      if ((error as { code?: string }).code !== "EADDRINUSE" || performance.now() >= untilMs)
        throw error;
    }
  }
}
