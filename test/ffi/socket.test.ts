import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import {
  AF_INET,
  AF_INET6,
  SO_RCVTIMEO,
  SO_SNDTIMEO,
  SOL_SOCKET,
  TIMEVAL_BYTES,
} from "../../ffi/abi.ts";
import { endpointOf, type Family } from "../../ffi/endpoint.ts";
import { SyscallError } from "../../ffi/errno.ts";
import { hostPort } from "../../ffi/host-port.ts";
import { kernel, libc } from "../../ffi/libc.ts";
import { allocatePacketMemory, ReceiveBatch, SendBatch } from "../../ffi/mmsg.ts";
import { openReusePortGroup, UdpSocket } from "../../ffi/socket.ts";
import { until } from "../e2e/support/wait.ts";
import { openedSince, openFds } from "../support/fds.ts";
import { PATIENCE_MS, Peer } from "../support/peer.ts";
import { BLOCK, type Received, type ReceiveWorkerData } from "../support/receive-worker.ts";

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** Runs `action` and closes what it opened, however it ends. */
function withGroup<T>(
  count: number,
  action: (sockets: UdpSocket[]) => T,
  prepare = (_: UdpSocket) => {},
): T {
  const sockets = openReusePortGroup(AF_INET, "127.0.0.1", 0, count, prepare);
  try {
    return action(sockets);
  } finally {
    for (const socket of sockets) socket.close();
  }
}

describe("UdpSocket", () => {
  test.each([
    ["IPv4", AF_INET, "127.0.0.1"],
    ["IPv6", AF_INET6, "::1"],
  ] as const)("sends and receives over %s", (name, family: Family, address) => {
    const [a, b] = [new Peer(family), new Peer(family)];
    expect(a.socket.localAddress()).toEqual({ address, port: a.port, family: name });
    expect(a.port).toBeGreaterThan(0);
    a.send(text("to b"), b.endpoint);
    expect(b.receive()).toEqual({
      bytes: text("to b"),
      from: { address, port: a.port, family: name },
    });
    b.send(text("to a"), a.endpoint);
    expect(a.receive()?.bytes).toEqual(text("to a"));
    a.close();
    b.close();
  });

  test("a dual-stack socket sees IPv4 and IPv6 peers and answers both", () => {
    const both = new Peer(AF_INET6, "::", (socket) => socket.setDualStack(true));
    const v4 = new Peer(AF_INET);
    const v6 = new Peer(AF_INET6);
    v4.send(text("from v4"), endpointOf("127.0.0.1", both.port));
    expect(both.receive()).toEqual({
      bytes: text("from v4"),
      from: { address: "127.0.0.1", port: v4.port, family: "IPv4" },
    });
    v6.send(text("from v6"), endpointOf("::1", both.port));
    expect(both.receive()).toEqual({
      bytes: text("from v6"),
      from: { address: "::1", port: v6.port, family: "IPv6" },
    });
    both.send(text("to v4"), v4.endpoint);
    both.send(text("to v6"), v6.endpoint);
    expect(v4.receive()?.bytes).toEqual(text("to v4"));
    expect(v6.receive()?.bytes).toEqual(text("to v6"));
    for (const peer of [both, v4, v6]) peer.close();
  });

  test("without dual stack, IPv4 keeps the port for others", () => {
    const v6 = new Peer(AF_INET6, "::", (socket) => socket.setDualStack(false));
    const v4 = UdpSocket.open(AF_INET);
    v4.bind("0.0.0.0", v6.port);
    expect(v4.localAddress()).toEqual({ address: "0.0.0.0", port: v6.port, family: "IPv4" });
    v4.close();
    v6.close();
  });

  test("setBuffers says what was granted, not what was asked for", () => {
    const limit = (name: string): number =>
      Number(readFileSync(`/proc/sys/net/core/${name}`, "utf8"));
    const socket = UdpSocket.open(AF_INET);
    expect(socket.setBuffers(65_536, 32_768)).toEqual({ receiveBytes: 65_536, sendBytes: 32_768 });
    const asked = 2 ** 30 - 1;
    const granted = socket.setBuffers(asked, asked);
    expect(granted).toEqual({
      receiveBytes: Math.min(asked, limit("rmem_max")),
      sendBytes: Math.min(asked, limit("wmem_max")),
    });
    socket.close();
  });

  test("receiveDrops counts what did not fit", () => {
    const small = UdpSocket.open(AF_INET);
    small.setBuffers(1, 65_536); // the kernel grants its least, some 2 KiB
    small.bind("127.0.0.1", 0);
    expect(small.receiveDrops()).toBe(0);
    const sender = new Peer();
    const to = endpointOf("127.0.0.1", small.localAddress().port);
    const sent = 100;
    for (let i = 0; i < sent; i++) sender.send(new Uint8Array(1000), to);
    // Loopback delivers, or drops, before the send returns, unless the kernel puts it off: then it
    // catches up with one of these.
    const tries = 100_000;
    for (let i = 0; i < tries && small.receiveDrops() < sent / 2; i++);
    expect(small.receiveDrops()).toBeGreaterThanOrEqual(sent / 2);
    expect(small.receiveDrops()).toBeLessThanOrEqual(sent);
    small.close();
    sender.close();
  });

  test("setTimeouts bounds receives and sends, as the kernel has it, and a receive ends", () => {
    /** A bound in ms, by getsockopt: whole numbers of jiffies are given back as they were set. */
    const boundMs = ({ fd }: UdpSocket, option: number): number => {
      const timeval = new BigInt64Array(new ArrayBuffer(TIMEVAL_BYTES));
      expect(libc.getsockopt(fd, SOL_SOCKET, option, timeval, Int32Array.of(TIMEVAL_BYTES))).toBe(
        0,
      );
      return Number(timeval[0]) * 1000 + Number(timeval[1]) / 1000;
    };
    const bounds = (socket: UdpSocket) => [
      boundMs(socket, SO_RCVTIMEO),
      boundMs(socket, SO_SNDTIMEO),
    ];
    const bare = UdpSocket.open(AF_INET);
    expect(bounds(bare)).toEqual([0, 0]); // none
    bare.setTimeouts(1500, 2000);
    expect(bounds(bare)).toEqual([1500, 2000]);
    bare.setTimeouts(0, 0);
    expect(bounds(bare)).toEqual([0, 0]);
    bare.close();
    const peer = new Peer(AF_INET, "127.0.0.1", (socket) => socket.setTimeouts(100, 100));
    expect(bounds(peer.socket)).toEqual([100, 100]);
    expect(peer.receive()).toBeUndefined();
    peer.close();
  });

  const majorVersion = Number.parseInt(readFileSync("/proc/sys/kernel/osrelease", "utf8"), 10);

  /** How many messages four datagrams arrive in that leave merged. */
  function messagesOfFour(receiver: UdpSocket): number {
    const [count, bytes] = [4, 100];
    receiver.setTimeouts(PATIENCE_MS, PATIENCE_MS);
    receiver.bind("127.0.0.1", 0);
    const sender = UdpSocket.open(AF_INET);
    const packets = allocatePacketMemory(count, count * bytes);
    const receive = new ReceiveBatch(kernel, receiver.fd, AF_INET, count, packets, true);
    const send = new SendBatch(kernel, sender.fd, AF_INET, 1, packets);
    send.setDestination(0, endpointOf("127.0.0.1", receiver.localAddress().port), 0);
    for (let i = 0; i < count; i++) send.setPiece(0, i, receive.extraAt + i * bytes, bytes);
    send.finish(0, count, bytes);
    expect(send.send(0, 1, true)).toBe(1);
    sender.close();
    let messages = 0;
    for (let arrived = 0; arrived < count * bytes; ) {
      const batch = receive.receive(true);
      if (batch <= 0) throw new Error(`${arrived} of ${count * bytes} bytes arrived`);
      messages += batch;
      for (let m = 0; m < batch; m++) arrived += receive.length(m);
    }
    return messages;
  }

  test.skipIf(majorVersion < 5)(
    "merged datagrams arrive merged with enableOffload, and one by one without (needs Linux 5)",
    () => {
      const [merging, plain] = [UdpSocket.open(AF_INET), UdpSocket.open(AF_INET)];
      expect(merging.enableOffload()).toBe(true);
      expect([messagesOfFour(merging), messagesOfFour(plain)]).toEqual([1, 4]);
      merging.close();
      plain.close();
    },
  );

  test.skipIf(majorVersion >= 5)(
    "enableOffload says no where the kernel is too old (needs Linux 4)",
    () => {
      const socket = UdpSocket.open(AF_INET);
      expect(socket.enableOffload()).toBe(false);
      socket.close();
    },
  );

  test("close is idempotent and does not close what got its number since", () => {
    const before = openFds();
    const first = UdpSocket.open(AF_INET);
    first.close();
    const second = UdpSocket.open(AF_INET);
    expect(second.fd).toBe(first.fd);
    first.close();
    expect(second.receiveDrops()).toBe(0);
    second.close();
    expect(openedSince(before)).toEqual([]);
  });
});

describe("stopReceiving", () => {
  /** Numbers of the recvmmsg call, by architecture: <asm/unistd.h>. */
  const RECVMMSG: Record<string, string> = { x64: "299", arm64: "243" };

  /** Whether a thread of this process is in recvmmsg on this fd, as the kernel sees it. */
  function blockedIn(fd: number): boolean {
    const call = `${RECVMMSG[process.arch]} 0x${fd.toString(16)} `;
    return readdirSync("/proc/self/task").some((thread) => {
      try {
        return readFileSync(`/proc/self/task/${thread}/syscall`, "utf8").startsWith(call);
      } catch {
        return false; // a thread that just ended
      }
    });
  }

  async function received(worker: Worker): Promise<Received> {
    const [message] = (await once(worker, "message")) as [Received];
    return message;
  }

  test("wakes a blocked receive, and later ones return at once", async () => {
    const socket = UdpSocket.open(AF_INET);
    socket.bind("127.0.0.1", 0);
    const workerData: ReceiveWorkerData = { fd: socket.fd, family: AF_INET };
    const worker = new Worker(new URL("../support/receive-worker.ts", import.meta.url), {
      workerData,
    });
    await once(worker, "online");
    worker.postMessage(BLOCK);
    const first = received(worker);
    // The socket has no timeout: nothing but stopReceiving ends that call.
    await until("the worker's receive blocks", () => blockedIn(socket.fd));
    socket.stopReceiving();
    const empty = { count: expect.any(Number), lengths: 0, senders: 0 };
    expect(await first).toEqual(empty);
    worker.postMessage(BLOCK);
    expect(await received(worker)).toEqual(empty);
    await worker.terminate();
    socket.close();
  }, 30_000);

  test("leaves what had arrived", () => {
    const stopped = new Peer();
    const sender = new Peer();
    sender.send(text("before"), stopped.endpoint);
    sender.send(text("before"), stopped.endpoint);
    expect(stopped.receive()?.bytes).toEqual(text("before")); // so both are in the queue
    stopped.socket.stopReceiving();
    expect(stopped.receive()?.bytes).toEqual(text("before"));
    expect(stopped.receive()?.bytes).toEqual(new Uint8Array());
    stopped.close();
    sender.close();
  });
});

describe("openReusePortGroup", () => {
  test("opens as many sockets on one port, each prepared before it is bound", () => {
    const ports: number[] = [];
    withGroup(
      4,
      (sockets) => {
        expect(new Set(sockets.map(({ fd }) => fd)).size).toBe(4);
        const addresses = sockets.map((socket) => socket.localAddress());
        expect(addresses[0]!.port).toBeGreaterThan(0);
        for (const address of addresses) expect(address).toEqual(addresses[0]!);
      },
      (socket) => ports.push(socket.localAddress().port),
    );
    expect(ports).toEqual([0, 0, 0, 0]);
  });

  test("a group of one is a plain socket", () => {
    withGroup(1, ([socket]) => {
      const { port } = socket!.localAddress();
      const other = UdpSocket.open(AF_INET);
      other.setReusePort();
      expect(() => other.bind("127.0.0.1", port)).toThrow("EADDRINUSE");
      other.close();
    });
  });

  test.each([1, 2, 4])("no second group of %d gets in, and nothing of it stays open", (count) => {
    withGroup(2, (sockets) => {
      const { port } = sockets[0]!.localAddress();
      const before = openFds();
      const prepared: UdpSocket[] = [];
      let failure: unknown;
      try {
        openReusePortGroup(AF_INET, "127.0.0.1", port, count, (socket) => prepared.push(socket));
      } catch (error) {
        failure = error;
      }
      expect(failure).toBeInstanceOf(SyscallError);
      expect(failure).toMatchObject({ code: "EADDRINUSE", call: `bind 127.0.0.1:${port}` });
      expect(prepared).toHaveLength(1);
      expect(openedSince(before)).toEqual([]);
    });
  });

  test("nothing stays open when a later socket cannot be prepared", () => {
    const before = openFds();
    let prepared = 0;
    expect(() =>
      openReusePortGroup(AF_INET, "127.0.0.1", 0, 4, () => {
        if (++prepared === 3) throw new Error("no more");
      }),
    ).toThrow("no more");
    expect(prepared).toBe(3);
    expect(openedSince(before)).toEqual([]);
  });
});

test("hostPort brackets IPv6", () => {
  expect(hostPort("192.0.2.1", 9001)).toBe("192.0.2.1:9001");
  expect(hostPort("2001:db8::1", 9001)).toBe("[2001:db8::1]:9001");
});
