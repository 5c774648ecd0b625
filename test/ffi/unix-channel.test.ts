import { afterEach, expect, test } from "bun:test";
import { AF_INET } from "../../ffi/abi.ts";
import { UdpSocket } from "../../ffi/socket.ts";
import {
  isClosed,
  MESSAGE_BYTES_MAX,
  MESSAGE_FILES_MAX,
  UnixChannel,
} from "../../ffi/unix-channel.ts";
import { until } from "../e2e/support/wait.ts";
import { openedSince, openFds } from "../support/fds.ts";

const channels: UnixChannel[] = [];
afterEach(() => {
  for (const channel of channels.splice(0)) channel.close();
});

function pair(): [UnixChannel, UnixChannel] {
  const ends = UnixChannel.pair();
  channels.push(...ends);
  return ends;
}

const text = (value: string) => new TextEncoder().encode(value);

function receivedText(channel: UnixChannel): string | undefined {
  const received = channel.receive();
  if (received === undefined || received === "closed") return received;
  expect(received.fds).toEqual([]);
  return new TextDecoder().decode(received.bytes);
}

test("messages arrive whole and in order, both ways, and nobody waits for any", () => {
  const [one, other] = pair();
  expect(other.receive()).toBeUndefined();
  for (const message of ["a", "bc", "d"]) expect(one.send(text(message))).toBe(true);
  other.send(text("back"));
  expect([receivedText(other), receivedText(other), receivedText(other)]).toEqual(["a", "bc", "d"]);
  expect(other.receive()).toBeUndefined();
  expect(receivedText(one)).toBe("back");
});

test("the largest message, and how the room ends and comes back", () => {
  const [one, other] = pair();
  const large = new Uint8Array(MESSAGE_BYTES_MAX).map((_, i) => i % 251);
  let sent = 0;
  while (one.send(large)) expect(++sent).toBeLessThan(10_000);
  expect(sent).toBeGreaterThan(0);
  const received = other.receive();
  expect(received).toMatchObject({ fds: [] });
  expect(Buffer.compare((received as { bytes: Uint8Array }).bytes, large)).toBe(0);
  expect(one.send(large)).toBe(true);
  expect(() => one.send(new Uint8Array(MESSAGE_BYTES_MAX + 1))).toThrow(RangeError);
  expect(() => one.send(new Uint8Array(0))).toThrow(RangeError);
});

test("files come with their message, and are the same sockets", () => {
  const [one, other] = pair();
  const before = openFds();
  const sockets = Array.from({ length: 3 }, () => UdpSocket.open(AF_INET));
  for (const socket of sockets) socket.bind("127.0.0.1", 0);
  one.send(text("first"));
  one.send(
    text("files"),
    sockets.map(({ fd }) => fd),
  );
  one.send(text("last"));
  expect(receivedText(other)).toBe("first");
  const received = other.receive();
  if (received === undefined || received === "closed") throw new Error("nothing came");
  const adopted = received.fds.map((fd) => UdpSocket.adopt(fd));
  expect(adopted.map((socket) => socket.localAddress())).toEqual(
    sockets.map((socket) => socket.localAddress()),
  );
  expect(received.fds.some((fd) => sockets.some((socket) => socket.fd === fd))).toBe(false);
  expect(receivedText(other)).toBe("last");
  for (const socket of [...sockets, ...adopted]) socket.close();
  expect(openedSince(before)).toEqual([]);
  expect(() => one.send(text("x"), new Array(MESSAGE_FILES_MAX + 1).fill(0))).toThrow(RangeError);
});

test("what was sent before the other end closed still comes, files too, and then the end", () => {
  const [one, other] = pair();
  other.send(text("never read"));
  const socket = UdpSocket.open(AF_INET);
  one.send(text("files"), [socket.fd]);
  one.close(); // with a message unread
  expect(() => other.send(text("x"))).toThrow();
  const received = other.receive();
  if (received === undefined || received === "closed") throw new Error("nothing came");
  for (const fd of received.fds) UdpSocket.adopt(fd).close();
  expect(received.fds).toHaveLength(1);
  expect([other.receive(), other.receive()]).toEqual(["closed", "closed"]);
  let error: unknown;
  try {
    other.send(text("x"));
  } catch (thrown) {
    error = thrown;
  }
  expect(isClosed(error)).toBe(true);
  socket.close();
});

test("another process has its end as an inherited file, and its death is the end", async () => {
  const [one, other] = pair();
  const script = `import socket, sys
end = socket.socket(fileno=3)
end.send(b"from " + end.recv(100))
sys.stdin.read()`;
  const child = Bun.spawn(["python3", "-c", script], {
    stdio: ["pipe", "ignore", "inherit", other.fd],
  });
  other.close();
  one.send(text("parent"));
  expect(await until("the other process answers", () => receivedText(one))).toBe("from parent");
  child.kill("SIGKILL");
  await child.exited;
  expect(one.receive()).toBe("closed");
});

test("what is no channel", () => {
  const socket = UdpSocket.open(AF_INET);
  expect(() => UdpSocket.adopt(0)).toThrow("ENOTSOCK");
  socket.close();
  expect(() => new UnixChannel(socket.fd).receive()).toThrow("EBADF");
});
