/** Follows the beacon's statistics across lost connections and restarts. */
import type { Stats } from "../features.ts";
import { authorization, forgetToken, hasToken } from "./token.ts";

/** Relative, as all of the page's URLs: a proxy may serve it below a path. */
const PATH = "api/stats/stream";
const FIRST_PAUSE_MS = 500;
const PAUSE_MS_MAX = 5000;
/** The beacon says something every second: who is silent for so long is gone without a word. */
const SILENCE_MS_MAX = 8000;
/** Far more than the numbers of a beacon with a thousand workers: more is no line of a beacon's. */
const LINE_CHARS_MAX = 8 << 20;

export interface Follower {
  /** A connection is there, and its first reading follows. Nothing is known of the time before. */
  opened(): void;
  read(stats: Stats): void;
  /** There is no connection. @param inMs the next attempt */
  lost(reason: string, inMs: number): void;
  /** The beacon wants a token, or another one. Resolves when there is one. */
  refused(why: string): Promise<void>;
}

/** Never returns. */
export async function follow(follower: Follower): Promise<never> {
  for (let pauseMs = FIRST_PAUSE_MS; ; ) {
    let reason: string | undefined;
    try {
      reason = await followOnce(follower, () => {
        pauseMs = FIRST_PAUSE_MS;
      });
    } catch (error) {
      reason =
        error instanceof Refused || error instanceof Silence
          ? error.message
          : "it cannot be reached";
    }
    if (reason === undefined) continue;
    follower.lost(reason, pauseMs);
    await sleep(pauseMs);
    pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX);
  }
}

/** What the beacon answered instead of numbers. */
class Refused extends Error {}
class Silence extends Error {}

/** @returns why it ended; undefined if there is a new token to try at once */
async function followOnce(follower: Follower, hasRead: () => void): Promise<string | undefined> {
  const abort = new AbortController();
  const beSilent = () => abort.abort(new Silence("it says nothing any more"));
  let timer = setTimeout(beSilent, SILENCE_MS_MAX);
  try {
    const response = await fetch(PATH, {
      headers: authorization(),
      cache: "no-store",
      signal: abort.signal,
    });
    if (response.status === 401) {
      clearTimeout(timer);
      const had = hasToken();
      forgetToken();
      await response.body?.cancel();
      await follower.refused(
        had
          ? "The beacon knows another token."
          : "This beacon shows its numbers to bearers of the admin token.",
      );
      return undefined;
    }
    if (!response.ok || response.body === null)
      throw new Refused((await response.text()).trim().slice(0, 200));
    follower.opened();
    for await (const line of linesOf(response.body)) {
      clearTimeout(timer);
      timer = setTimeout(beSilent, SILENCE_MS_MAX);
      follower.read(JSON.parse(line));
      hasRead();
    }
    return "it closed the connection";
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

async function* linesOf(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let text = "";
  for await (const part of body.pipeThrough(new TextDecoderStream())) {
    text += part;
    const lines = text.split("\n");
    text = lines.pop()!;
    if (text.length > LINE_CHARS_MAX) throw new Refused("it says what no beacon says");
    yield* lines;
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
