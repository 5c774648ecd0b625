import { afterEach, expect, test } from "bun:test";
import { NotifySocket } from "../../ffi/notify-socket.ts";
import { sendUnixDatagram } from "../../ffi/unix.ts";

const sockets: NotifySocket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.close();
});

function bind(): NotifySocket {
  const socket = NotifySocket.bind();
  sockets.push(socket);
  return socket;
}
const send = (socket: NotifySocket, text: string) =>
  sendUnixDatagram(socket.address, new TextEncoder().encode(text));

test("each socket has an address of its own, and gets what is sent there, with its sender", () => {
  const [one, other] = [bind(), bind()];
  expect(one.address).toMatch(/^@[0-9a-f]+$/);
  expect(other.address).not.toBe(one.address);
  expect(one.receive()).toBeUndefined();
  send(one, "READY=1\nSTATUS=ü");
  send(one, "second");
  expect(one.receive()).toEqual({ text: "READY=1\nSTATUS=ü", pid: process.pid });
  expect(one.receive()).toEqual({ text: "second", pid: process.pid });
  expect([one.receive(), other.receive()]).toEqual([undefined, undefined]);
});

test("a datagram that is too long is skipped, the largest is not", () => {
  const socket = bind();
  send(socket, "x".repeat(4097));
  send(socket, "y".repeat(4096));
  expect(socket.receive()?.text).toBe("y".repeat(4096));
});

const python = Bun.which("python3");
test.skipIf(!python)(`files that come along are closed${python ? "" : " (needs python3)"}`, () => {
  const socket = bind();
  const script = `
import os, socket, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect("\\0" + sys.argv[1][1:])
socket.send_fds(sender, [b"BARRIER=1"], [os.open("/dev/null", 0)] * 3)
`;
  const sent = Bun.spawnSync(["python3", "-c", script, socket.address], { stderr: "pipe" });
  expect(sent.stderr.toString()).toBe("");
  const open = () =>
    Array.from(new Bun.Glob("*").scanSync({ cwd: "/proc/self/fd", onlyFiles: false })).length;
  const before = open();
  expect(socket.receive()?.text).toBe("BARRIER=1");
  expect(open()).toBe(before);
});
