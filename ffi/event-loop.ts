/**
 * Puts a listening socket in the place of one that Bun's event loop watches.
 *
 * `Bun.serve` opens its own socket and takes no other (Bun 1.4.5: `fd` is ignored; `Bun.listen`
 * takes one). The kernel shows what an epoll file watches in /proc/self/fdinfo (proc(5)): the
 * file's number, the events, and the word that the loop gets back with them. So another socket can
 * be put under the same number (dup3), and watched again with the same word.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { EPOLL_CTL_ADD, O_CLOEXEC } from "./abi.ts";
import { SyscallError } from "./errno.ts";
import { errno, libc } from "./libc.ts";
import { ListeningSocket } from "./listening-socket.ts";

/** struct epoll_event { u32 events; u64 data }, which is packed on x86-64 alone. */
const DATA_AT = process.arch === "x64" ? 4 : 8;
const EVENT_BYTES = DATA_AT + 8;

/** A socket that listens and that an event loop watches. */
interface Watched {
  readonly epollFd: number;
  readonly fd: number;
  readonly events: number;
  readonly data: bigint;
}

/**
 * Has a server accept from a socket that it did not open.
 * @param serve starts it, on any port
 * @returns undefined where the kernel does not show what an epoll file watches (gVisor), or no file
 * is
 *   left to read that with; the server is stopped then
 * @throws SyscallError listen, dup3, epoll_ctl; whatever `serve` throws
 */
export function acceptFrom<Server extends { stop(closeAll: boolean): unknown }>(
  socket: ListeningSocket,
  serve: () => Server,
): Server | undefined {
  socket.listen();
  const before = new Set(watchedListeners().map(({ fd }) => fd));
  const server = serve();
  const watched = watchedListeners().find(({ fd }) => !before.has(fd));
  try {
    if (watched !== undefined) {
      replace(watched, socket);
      return server;
    }
  } catch (error) {
    void server.stop(true);
    throw error;
  }
  void server.stop(true);
  return undefined;
}

function watchedListeners(): Watched[] {
  try {
    return readdirSync("/proc/self/fd").filter(isEpoll).flatMap(listenersOf);
  } catch {
    return []; // no /proc, or no file left to read it with
  }
}

function isEpoll(fd: string): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === "anon_inode:[eventpoll]";
  } catch {
    return false; // closed since it was listed
  }
}

function listenersOf(epoll: string): Watched[] {
  const lines = readFileSync(`/proc/self/fdinfo/${epoll}`, "latin1");
  const entries = lines.matchAll(/^tfd:\s*(\d+) events:\s*([\da-f]+) data:\s*([\da-f]+)/gm);
  return Array.from(entries, ([, fd, events, data]) => ({
    epollFd: Number(epoll),
    fd: Number(fd),
    events: Number.parseInt(events!, 16),
    data: BigInt(`0x${data}`),
  })).filter(({ fd }) => ListeningSocket.is(fd));
}

/** Puts `socket` under the watched socket's number, closing that one, and watches it. */
function replace({ epollFd, fd, events, data }: Watched, socket: ListeningSocket): void {
  if (libc.dup3(socket.fd, fd, O_CLOEXEC) < 0) throw new SyscallError("dup3", errno());
  const event = new DataView(new ArrayBuffer(EVENT_BYTES));
  event.setUint32(0, events, true);
  event.setBigUint64(DATA_AT, data, true);
  const bytes = new Uint8Array(event.buffer);
  if (libc.epoll_ctl(epollFd, EPOLL_CTL_ADD, fd, bytes) < 0)
    throw new SyscallError("epoll_ctl", errno());
}
