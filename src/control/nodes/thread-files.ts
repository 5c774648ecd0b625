/**
 * Calls to a file system on a thread of their own. A call to a file system that hangs (NFS whose
 * server is gone) blocks its thread, for hours. The runtime's own threads for node:fs/promises are
 * as many as the host has cores, and serve name look-ups and signatures, too. Here such a call
 * blocks nothing else, and its caller gets an error after `answerMsMax`.
 */
import { constants } from "node:fs";
import { Worker } from "node:worker_threads";
import { FILES_ENTRY } from "../../thread-entries.ts";
import { type FileInfo, type Files, NO_ANSWER, type OpenFile } from "./files.ts";
import type { Answer, Call, InfoNumbers, Operation } from "./files-thread.ts";

/** How long a call may take while the beacon serves: an fsync on a busy disk takes seconds. */
const ANSWER_MS_MAX = 30_000;
/** And while the beacon waits for it to end, or to be replaced. */
const HURRIED_ANSWER_MS_MAX = 10_000;

interface Waiting {
  readonly sinceMs: number;
  timer: Timer;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class ThreadFiles implements Files {
  readonly #thread: Worker;
  readonly #waiting = new Map<number, Waiting>();
  /** Calls that the thread has and did not answer, whether anything waits for them or not. */
  #unanswered = 0;
  #lastId = 0;
  #answerMsMax: number;
  #isGivenUp = false;

  /** Starts the thread. It does not keep the process alive. */
  constructor(
    private readonly usualMsMax: number = ANSWER_MS_MAX,
    private readonly hurriedMsMax: number = HURRIED_ANSWER_MS_MAX,
  ) {
    this.#answerMsMax = usualMsMax;
    this.#thread = new Worker(FILES_ENTRY);
    this.#thread.unref();
    this.#thread.on("message", (answer: Answer) => this.#answered(answer));
    this.#thread.on("error", () => this.giveUp());
    this.#thread.on("exit", () => this.giveUp());
  }

  async lstat(path: string): Promise<FileInfo> {
    return new Info((await this.#call("lstat", path)) as InfoNumbers);
  }

  async open(path: string, flags: string | number, mode?: number): Promise<OpenFile> {
    const fd = (await this.#call("open", path, flags, mode)) as number;
    return {
      stat: async () => new Info((await this.#call("stat", fd)) as InfoNumbers),
      read: async (into, offset, length, position) => {
        const bytes = (await this.#call("read", fd, length, position)) as Uint8Array;
        into.set(bytes, offset);
        return { bytesRead: bytes.length };
      },
      write: async (from, offset, length, position) => {
        const bytes = from.slice(offset, offset + length); // the thread gets a copy
        return { bytesWritten: (await this.#call("write", fd, bytes, position)) as number };
      },
      sync: async () => void (await this.#call("sync", fd)),
      close: async () => {
        if (this.#isStalled) this.#post("close", [fd]);
        else await this.#call("close", fd);
      },
    };
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#call("rename", from, to);
  }

  async unlink(path: string): Promise<void> {
    await this.#call("unlink", path);
  }

  /** Waits less long for answers from now on, also for those that are being waited for. */
  hurry(): void {
    this.#waitUpTo(this.hurriedMsMax);
  }

  /** Waits as long as at first. */
  relax(): void {
    this.#waitUpTo(this.usualMsMax);
  }

  /** Waits for no answer any more: all calls fail, now and later. */
  giveUp(): void {
    this.#isGivenUp = true;
    for (const id of this.#waiting.keys()) this.#fail(id);
  }

  /** Ends the thread. The call that it is blocked in, if any, ends with the process. */
  end(): void {
    this.giveUp();
    void this.#thread.terminate();
  }

  /** Whether nothing waits for answers any more. */
  get isGivenUp(): boolean {
    return this.#isGivenUp;
  }

  /** Whether a call is overdue and still unanswered: those behind it would be, too. */
  get #isStalled(): boolean {
    return this.#isGivenUp || this.#unanswered > this.#waiting.size;
  }

  #call(operation: Operation, ...args: readonly unknown[]): Promise<unknown> {
    if (this.#isStalled) return Promise.reject(noAnswer());
    const id = this.#post(operation, args);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#fail(id), this.#answerMsMax);
      this.#waiting.set(id, { sinceMs: performance.now(), timer, resolve, reject });
    });
  }

  #post(operation: Operation, args: readonly unknown[]): number {
    const id = ++this.#lastId;
    this.#unanswered++;
    this.#thread.postMessage({ id, operation, args } satisfies Call);
    return id;
  }

  #answered({ id, operation, value, error }: Answer): void {
    this.#unanswered--;
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) {
      if (operation === "open" && error === undefined) this.#post("close", [value]); // too late
      return;
    }
    clearTimeout(waiting.timer);
    this.#waiting.delete(id);
    if (error === undefined) waiting.resolve(value);
    else waiting.reject(Object.assign(new Error(error.message), { code: error.code }));
  }

  #fail(id: number): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    clearTimeout(waiting.timer);
    this.#waiting.delete(id);
    waiting.reject(noAnswer());
  }

  #waitUpTo(ms: number): void {
    this.#answerMsMax = ms;
    for (const [id, waiting] of this.#waiting) {
      clearTimeout(waiting.timer);
      waiting.timer = setTimeout(
        () => this.#fail(id),
        Math.max(0, waiting.sinceMs + ms - performance.now()),
      );
    }
  }
}

function noAnswer(): Error {
  return Object.assign(new Error("its file system does not answer"), { code: NO_ANSWER });
}

class Info implements FileInfo {
  readonly mode: number;
  readonly uid: number;
  readonly size: number;

  constructor({ mode, uid, size }: InfoNumbers) {
    this.mode = mode;
    this.uid = uid;
    this.size = size;
  }
  isFile(): boolean {
    return this.#is(constants.S_IFREG);
  }
  isDirectory(): boolean {
    return this.#is(constants.S_IFDIR);
  }
  isSymbolicLink(): boolean {
    return this.#is(constants.S_IFLNK);
  }
  isFIFO(): boolean {
    return this.#is(constants.S_IFIFO);
  }
  isSocket(): boolean {
    return this.#is(constants.S_IFSOCK);
  }
  #is(type: number): boolean {
    return (this.mode & constants.S_IFMT) === type;
  }
}
