import { afterEach, describe, expect, test } from "bun:test";
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SyscallError } from "../../ffi/errno.ts";
import { monotonicUs } from "../../ffi/libc.ts";
import { sendUnixDatagram, UNIX_ADDRESS_BYTES_MAX } from "../../ffi/unix.ts";
import { installed, type Program, Programs } from "../e2e/support/program.ts";
import { openedSince, openFds } from "../support/fds.ts";
import { temporaryFolder } from "../support/folder.ts";

/** Binds a Unix datagram socket and prints what comes, in hex; with "hold", it never looks. */
const RECEIVER = `
import signal, socket, sys
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
address = sys.argv[1]
receiver.bind("\\0" + address[1:] if address.startswith("@") else address)
print("bound", flush=True)
while True:
    print(signal.pause() if sys.argv[2:] == ["hold"] else receiver.recv(65536).hex(), flush=True)
`;

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

function failureOf(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

const folder = temporaryFolder();
const programs = new Programs();
afterEach(async () => {
  await programs.kill();
  for (const name of readdirSync(folder)) rmSync(join(folder, name));
});

const unique = `@unix-test-${process.pid}`;
/** A path in `folder`, and an abstract name, of so many bytes. */
const pathOf = (bytes: number) => join(folder, "p".padEnd(bytes - folder.length - 1, "p"));
const nameOf = (bytes: number) => unique.padEnd(bytes + 1, "n");

function emptyFile(name: string): string {
  writeFileSync(join(folder, name), "");
  return join(folder, name);
}

async function receiver(...args: string[]): Promise<Program> {
  const program = programs.spawn(["python3", "-c", RECEIVER, ...args]);
  await program.line("bound", (line) => line === "bound" || undefined);
  return program;
}

/** Waits for datagram `i`, in hex. */
async function datagram(program: Program, i: number): Promise<string> {
  await program.line(`datagram ${i}`, () => program.lines[1 + i]);
  return program.lines[1 + i]!;
}

const python = installed("python3");

describe.skipIf(!python)(`a Unix datagram${python ? "" : " (needs python3)"}`, () => {
  test.each([
    ["a path", () => join(folder, "socket")],
    ["a path with letters of several bytes", () => join(folder, "sçhön")],
    ["the longest path", () => pathOf(UNIX_ADDRESS_BYTES_MAX)],
    ["an abstract name", () => unique],
    ["an abstract name of one byte more, which is another", () => `${unique}x`],
    ["the longest abstract name", () => nameOf(UNIX_ADDRESS_BYTES_MAX)],
  ])("arrives at %s", async (_, addressOf) => {
    const address = addressOf();
    const program = await receiver(address);
    const sent = [text("READY=1\nSTATUS=grün"), new Uint8Array(), new Uint8Array(10_000).fill(7)];
    const before = openFds();
    for (const bytes of sent) sendUnixDatagram(address, bytes);
    expect(openedSince(before)).toEqual([]);
    for (const [i, bytes] of sent.entries()) {
      expect(await datagram(program, i)).toBe(Buffer.from(bytes).toString("hex"));
    }
  });

  test.each([
    ["a path", () => join(folder, "held")],
    ["an abstract name", () => `${unique}-held`],
  ])("to %s whose queue is full is an error at once", async (_, addressOf) => {
    const address = addressOf();
    await receiver(address, "hold");
    const before = openFds();
    const tries = 1_000_000; // net.unix.max_dgram_qlen, and the sender's buffer, are far below
    const failure = failureOf(() => {
      for (let i = 0; i < tries; i++) sendUnixDatagram(address, text("x"));
    });
    expect(failure).toBeInstanceOf(SyscallError);
    expect(failure).toMatchObject({ code: "EAGAIN", call: `sendto ${address}` });
    expect(openedSince(before)).toEqual([]);
  });

  test("too large for the socket's buffer is an error", async () => {
    await receiver(unique);
    const failure = failureOf(() => sendUnixDatagram(unique, new Uint8Array(2 ** 26)));
    expect(failure).toMatchObject({ code: "EMSGSIZE", call: `sendto ${unique}` });
  });

  test("to a path that its receiver left behind is an error", async () => {
    const path = join(folder, "left");
    await receiver(path);
    await programs.kill();
    expect(failureOf(() => sendUnixDatagram(path, text("x")))).toMatchObject({
      code: "ECONNREFUSED",
    });
  });

  test("monotonicUs is the clock that others see", async () => {
    const CLOCK = "import time; print(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)";
    const before = monotonicUs();
    const { stdout } = Bun.spawnSync(["python3", "-c", CLOCK]);
    const seen = Number(stdout.toString());
    expect(seen).toBeGreaterThan(before);
    expect(seen).toBeLessThan(monotonicUs());
  });
});

describe("what cannot be sent", () => {
  test.each([
    ["to no such path", "ENOENT", () => join(folder, "nobody")],
    ["to no such name", "ECONNREFUSED", () => `${unique}-nobody`],
    ["to a file", "ECONNREFUSED", () => emptyFile("file")],
  ] as const)("%s is %s", (_, code, addressOf) => {
    const address = addressOf();
    const before = openFds();
    const failure = failureOf(() => sendUnixDatagram(address, text("x")));
    expect(failure).toBeInstanceOf(SyscallError);
    expect(failure).toMatchObject({ code, call: `sendto ${address}` });
    expect(openedSince(before)).toEqual([]);
  });

  test("to a stream socket is EPROTOTYPE", () => {
    const unix = join(folder, "stream");
    const listener = Bun.listen({ unix, socket: { data() {} } });
    expect(failureOf(() => sendUnixDatagram(unix, text("x")))).toMatchObject({
      code: "EPROTOTYPE",
    });
    listener.stop(true);
  });

  test.each([
    ["empty", ""],
    ["an empty name", "@"],
    ["a path too long", `/${"p".repeat(UNIX_ADDRESS_BYTES_MAX)}`],
    ["a path too long in bytes", `/${"ö".repeat(UNIX_ADDRESS_BYTES_MAX / 2)}ö`],
    ["a name too long", `@${"n".repeat(UNIX_ADDRESS_BYTES_MAX + 1)}`],
    ["a NUL in the path", "/tmp/a\0b"],
    ["a NUL in the name", "@a\0b"],
  ])("to an address that no sockaddr holds is a RangeError: %s", (_, address) => {
    const before = openFds();
    expect(() => sendUnixDatagram(address, text("x"))).toThrow(RangeError);
    expect(openedSince(before)).toEqual([]);
  });
});
