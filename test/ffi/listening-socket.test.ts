/** TCP sockets that listen, and the servers that accept from them. */
import { afterEach, describe, expect, test } from "bun:test";
import { closeSync } from "node:fs";
import { createServer } from "node:net";
import { acceptFrom } from "../../ffi/event-loop.ts";
import { ListeningSocket } from "../../ffi/listening-socket.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import { openedSince, openFds } from "../support/fds.ts";

const open: { close(): unknown }[] = [];
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

function opened(host: string, port = 0): ListeningSocket {
  const socket = ListeningSocket.open(host, port);
  open.push(socket);
  return socket;
}

/** A server on that socket that answers with a word. */
function serving(socket: ListeningSocket, word: string): Bun.Server<undefined> | undefined {
  const server = acceptFrom(socket, () =>
    Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response(word) }),
  );
  if (server) open.push({ close: () => server.stop(true) });
  return server;
}

const ask = async (host: string, port: number) =>
  (await fetch(`http://${host}:${port}/`, { keepalive: false })).text();

describe("a listening socket", () => {
  test.each([
    ["127.0.0.1", ["127.0.0.1"]],
    ["::1", ["[::1]"]],
    ["", ["127.0.0.1", "[::1]"]],
    ["::", ["127.0.0.1", "[::1]"]],
  ])("at %p is reached at its addresses", async (host, reachedAt) => {
    const socket = opened(host);
    expect(socket.port).toBeGreaterThan(0);
    expect(serving(socket, "here")).toBeDefined();
    for (const address of reachedAt) expect(await ask(address, socket.port)).toBe("here");
  });

  test("names the call and the reason if it cannot be had", () => {
    const { port } = opened("127.0.0.1");
    const failure = (host: string, at: number) => {
      try {
        ListeningSocket.open(host, at).close();
      } catch (error) {
        return (error as Error).message;
      }
      return "none";
    };
    expect(failure("127.0.0.1", port)).toStartWith(`bind 127.0.0.1:${port}: EADDRINUSE`);
    expect(failure("192.0.2.1", 0)).toStartWith("bind 192.0.2.1:0: EADDRNOTAVAIL");
  });

  test("leaves no file behind, however it ends", () => {
    const before = openFds();
    const socket = ListeningSocket.open("127.0.0.1", 0);
    const { fd, port } = socket;
    expect(() => ListeningSocket.open("127.0.0.1", port)).toThrow("EADDRINUSE");
    expect(ListeningSocket.adopt(socket.duplicate())!.port).toBe(port);
    for (const each of openedSince(before)) if (!each.startsWith(`${fd} `)) closeFd(each);
    socket.close();
    socket.close();
    expect(socket.isOpen).toBe(false);
    expect(openedSince(before)).toEqual([]);
  });

  test("is not what another file is: such a one is closed when it is handed over", () => {
    const before = openFds();
    const udp = UdpSocket.open(2);
    expect(ListeningSocket.adopt(udp.fd)).toBeUndefined();
    expect(openedSince(before)).toEqual([]);
  });
});

describe("a server that accepts from one", () => {
  test("gets what waits there, and so does the one after it, with a new word", async () => {
    const socket = opened("127.0.0.1");
    for (const word of ["one", "two", "three"]) {
      const answer = ask("127.0.0.1", socket.port);
      await Bun.sleep(20);
      const server = serving(socket, word)!;
      expect(await answer).toBe(word);
      await server.stop();
    }
  });

  test("closes its own port, and leaves the socket open when it stops", async () => {
    const before = openFds();
    const socket = ListeningSocket.open("127.0.0.1", 0);
    let own = 0;
    const server = acceptFrom(socket, () => {
      const started = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("") });
      own = started.port!;
      return started;
    })!;
    const thief = createServer().listen(own, "127.0.0.1");
    await new Promise((resolve) => thief.once("listening", resolve));
    thief.close();
    await server.stop(true);
    expect(ListeningSocket.is(socket.fd)).toBe(true);
    socket.close();
    expect(openedSince(before).filter((each) => each.includes("socket:"))).toEqual([]);
  });

  test("is stopped where no event loop watches it", async () => {
    const socket = opened("127.0.0.1");
    let stopped = false;
    const server = acceptFrom(socket, () => ({
      stop: () => {
        stopped = true;
      },
    }));
    expect([server, stopped]).toEqual([undefined, true]);
  });
});

function closeFd(named: string): void {
  closeSync(Number.parseInt(named, 10));
}
