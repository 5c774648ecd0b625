/** The sockets that a process listens on, and hands to the one that takes over. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { AF_INET } from "../../../ffi/abi.ts";
import { acceptFrom } from "../../../ffi/event-loop.ts";
import { ListeningSocket } from "../../../ffi/listening-socket.ts";
import { UdpSocket } from "../../../ffi/socket.ts";
import { type InheritedListener, Listeners } from "../../../src/control/listeners/listeners.ts";
import { freePort } from "../../e2e/support/mesh.ts";
import { until } from "../../e2e/support/wait.ts";
import { openedSince, openFds } from "../../support/fds.ts";

const ANY = "127.0.0.1:0";
const all: Listeners[] = [];
let before: ReadonlySet<string>;
beforeEach(() => {
  before = openFds();
});
afterEach(async () => {
  for (const listeners of all.splice(0)) listeners.close();
  const sockets = () => openedSince(before).filter((file) => file.includes("socket:"));
  await until("all are closed", () => sockets().length === 0);
});

function made(inherited: readonly InheritedListener[] = []): Listeners {
  const listeners = new Listeners();
  all.push(listeners);
  listeners.adopt(inherited);
  return listeners;
}

/** As another process gets it: a file of its own. */
function handed(from: Listeners): InheritedListener[] {
  return from.inheritable.map(({ name, address, fd }) => {
    const copy = ListeningSocket.adopt(fd)!.duplicate();
    return { name, address, fd: copy };
  });
}

test("a process that takes over listens on the same sockets, also on a port that the kernel chose", () => {
  const old = made();
  const ports = [old.open("http", ANY).port, old.open("wss", ANY, { deferred: true }).port];
  const successor = made(handed(old));
  old.close();
  expect([successor.open("http", ANY).port, successor.open("wss", ANY).port]).toEqual(ports);
});

test("one that listens elsewhere closes the socket, and opens its own", () => {
  const old = made();
  const { port } = old.open("http", ANY);
  const successor = made(handed(old));
  const own = successor.open("http", "[::1]:0");
  expect(own.port).toBeGreaterThan(0);
  old.close();
  made().open("http", `127.0.0.1:${port}`); // nobody has it any more
});

test("one that listens at another address of the same port gets it; else the old one has it again", async () => {
  const old = made();
  const port = freePort();
  const socket = old.open("http", `127.0.0.1:${port}`);
  const successor = made(handed(old));
  expect(successor.open("http", `0.0.0.0:${port}`).port).toBe(port);
  successor.close();
  const server = acceptFrom(socket, () =>
    Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("again") }),
  )!;
  expect(await (await fetch(`http://127.0.0.1:${port}/`, { keepalive: false })).text()).toBe(
    "again",
  );
  await server.stop(true);
});

test("a socket that is closed is not handed over", () => {
  const listeners = made();
  const socket = listeners.open("wss", ANY);
  expect(listeners.inheritable).toEqual([{ name: "wss", address: ANY, fd: socket.fd }]);
  socket.close();
  expect(listeners.inheritable).toEqual([]);
});

test("what is handed over and is no listening socket is closed, and another one opened", () => {
  const listeners = made([{ name: "http", address: ANY, fd: UdpSocket.open(AF_INET).fd }]);
  expect(listeners.inheritable).toEqual([]);
  expect(listeners.open("http", ANY).port).toBeGreaterThan(0);
});

test("a socket of a name that nobody asks for is closed with the rest", () => {
  const old = made();
  old.open("http", ANY);
  made(handed(old).map((listener) => ({ ...listener, name: "later" })));
});
