/** A value of this moment, once a second, as lines of JSON to everybody who wants to follow it. */

/** Long enough that the beacon is not busy with being watched. */
const INTERVAL_MS = 1000;
/** Far more than operators that look; each costs a socket, and at most BACKLOG_BYTES. */
export const FOLLOWERS_MAX = 64;
/** What may wait for a follower that reads slowly; then it misses lines. Some ten lines. */
const BACKLOG_BYTES = 256 << 10;
/** A follower that took nothing for so many lines is gone, or as good as. */
const MISSED_MAX = 30;

interface Follower {
  readonly controller: ReadableStreamDefaultController<Uint8Array>;
  /** Lines that it missed in a row. */
  missed: number;
}

export class LineStream {
  readonly #followers = new Set<Follower>();
  #timer: Timer | undefined;

  /** @param read asked once for all followers */
  constructor(private readonly read: () => unknown) {}

  /**
   * @returns the lines from now on, the first one at once; undefined if there are FOLLOWERS_MAX
   * already
   */
  follow(): ReadableStream<Uint8Array> | undefined {
    if (this.#followers.size >= FOLLOWERS_MAX) return undefined;
    let follower: Follower;
    return new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          follower = { controller, missed: 0 };
          controller.enqueue(this.#line());
          this.#followers.add(follower);
          this.#timer ??= setInterval(() => this.#tell(), INTERVAL_MS);
        },
        cancel: () => this.#leave(follower),
      },
      { highWaterMark: BACKLOG_BYTES, size: (line) => line?.byteLength ?? 0 },
    );
  }

  /** Ends it for all. */
  close(): void {
    for (const follower of this.#followers) this.#end(follower);
  }

  #tell(): void {
    const line = this.#line();
    for (const follower of this.#followers) {
      if ((follower.controller.desiredSize ?? 0) > 0) {
        follower.missed = 0;
        follower.controller.enqueue(line);
      } else if (++follower.missed > MISSED_MAX) {
        this.#end(follower);
      }
    }
  }

  #line(): Uint8Array {
    return new TextEncoder().encode(`${JSON.stringify(this.read())}\n`);
  }

  #end(follower: Follower): void {
    this.#leave(follower);
    try {
      follower.controller.close();
    } catch {} // it has left by itself
  }

  #leave(follower: Follower): void {
    this.#followers.delete(follower);
    if (this.#followers.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
