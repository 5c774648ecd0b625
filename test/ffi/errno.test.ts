import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { AF_INET, AF_INET6 } from "../../ffi/abi.ts";
import * as errnos from "../../ffi/errno.ts";
import { EADDRINUSE, EADDRNOTAVAIL, EBADF, errnoName, SyscallError } from "../../ffi/errno.ts";
import { errno, kernel, libc } from "../../ffi/libc.ts";
import { UdpSocket } from "../../ffi/socket.ts";

/** The SyscallError that `action` throws. */
function failureOf(action: () => unknown): SyscallError {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(SyscallError);
    return error as SyscallError;
  }
  throw new Error("nothing was thrown");
}

/** Runs `action` with a fresh socket and closes it. */
function withSocket<T>(
  action: (socket: UdpSocket) => T,
  family: typeof AF_INET | typeof AF_INET6 = AF_INET,
): T {
  const socket = UdpSocket.open(family);
  try {
    return action(socket);
  } finally {
    socket.close();
  }
}

describe("the errno numbers", () => {
  test("are the platform's, none left out", () => {
    const { SyscallError: _error, errnoName: _name, ...numbers } = errnos;
    expect(Object.keys(numbers).length).toBeGreaterThan(20);
    for (const [name, number] of Object.entries(numbers)) {
      expect(number).toBe(constants.errno[name as keyof typeof constants.errno]);
    }
  });

  test("have names", () => {
    expect(errnoName(EADDRINUSE)).toBe("EADDRINUSE");
    expect(errnoName(errnos.EAGAIN)).toBe("EAGAIN");
    expect(errnoName(1234)).toBe("errno 1234");
  });
});

describe("SyscallError", () => {
  test("says which call, which errno and what to do", () => {
    const error = new SyscallError("bind 192.0.2.1:9001", EADDRINUSE);
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe("SyscallError");
    expect(error.call).toBe("bind 192.0.2.1:9001");
    expect(error.errno).toBe(EADDRINUSE);
    expect(error.code).toBe("EADDRINUSE");
    expect(error.message).toBe(
      "bind 192.0.2.1:9001: EADDRINUSE (another program has this port: stop it, or choose another port)",
    );
  });

  test("says what the errno means where there is no advice", () => {
    expect(new SyscallError("recvmmsg", EBADF).message).toBe(
      "recvmmsg: EBADF (bad file descriptor)",
    );
  });

  test("takes an errno that the platform does not name", () => {
    const error = new SyscallError("socket", 1234);
    expect(error.code).toBe("errno 1234");
    expect(error.message).toBe("socket: errno 1234 (unknown error)");
  });
});

describe("real failures", () => {
  test("a port that is taken", () => {
    withSocket((holder) => {
      holder.bind("127.0.0.1", 0);
      const { port } = holder.localAddress();
      const error = withSocket((socket) => failureOf(() => socket.bind("127.0.0.1", port)));
      expect(error.code).toBe("EADDRINUSE");
      expect(error.call).toBe(`bind 127.0.0.1:${port}`);
      expect(error.message).toContain("another program has this port");
    });
  });

  test("an address of no interface", () => {
    // 192.0.2.0/24 is for documentation (RFC 5737): no host has it.
    const error = withSocket((socket) => failureOf(() => socket.bind("192.0.2.1", 0)));
    expect(error.errno).toBe(EADDRNOTAVAIL);
    expect(error.message).toContain(
      "bind 192.0.2.1:0: EADDRNOTAVAIL (this address is not on any interface",
    );
  });

  test("an IPv6 address is named in brackets", () => {
    const error = withSocket(
      (socket) => failureOf(() => socket.bind("2001:db8::1", 9001)),
      AF_INET6,
    );
    expect(error.call).toBe("bind [2001:db8::1]:9001");
    expect(error.errno).toBe(EADDRNOTAVAIL);
  });

  test("a closed socket", () => {
    const socket = withSocket((open) => open);
    for (const [call, action] of [
      ["bind 127.0.0.1:0", () => socket.bind("127.0.0.1", 0)],
      ["getsockname", () => socket.localAddress()],
      ["setsockopt SO_REUSEPORT", () => socket.setReusePort()],
      ["setsockopt IPV6_V6ONLY", () => socket.setDualStack(true)],
      ["setsockopt SO_RCVBUF", () => socket.setBuffers(1, 1)],
      ["setsockopt SO_RCVTIMEO", () => socket.setTimeouts(1, 1)],
      ["getsockopt UDP_SEGMENT", () => socket.enableOffload()],
      ["getsockopt SO_MEMINFO", () => socket.receiveDrops()],
      ["shutdown", () => socket.stopReceiving()],
    ] as const) {
      const error = failureOf(action);
      expect([error.call, error.code]).toEqual([call, "EBADF"]);
    }
  });

  test("too many open files", () => {
    const script = new URL("../support/open-until-failure.ts", import.meta.url).pathname;
    const { stdout, stderr } = Bun.spawnSync([
      "sh",
      "-c",
      'ulimit -n 64 && exec "$0" "$1"',
      process.execPath,
      script,
    ]);
    expect(stderr.toString()).toBe("");
    expect(JSON.parse(stdout.toString())).toEqual({
      call: "socket IPv4",
      code: "EMFILE",
      message:
        "socket IPv4: EMFILE (too many open files in this process: raise its limit (ulimit -n, LimitNOFILE))",
    });
  });

  const firstFreePort = Number(
    readFileSync("/proc/sys/net/ipv4/ip_unprivileged_port_start", "utf8"),
  );
  test.skipIf(process.getuid?.() === 0 || firstFreePort < 2)(
    "a privileged port (needs another user than root)",
    () => {
      const error = withSocket((socket) =>
        failureOf(() => socket.bind("127.0.0.1", firstFreePort - 1)),
      );
      expect(error.code).toBe("EACCES");
      expect(error.message).toContain("CAP_NET_BIND_SERVICE");
    },
  );

  test("errno is that of the call that just failed", () => {
    expect(libc.close(-1)).toBe(-1);
    expect(errno()).toBe(EBADF);
    expect(libc.socket(-1, 0, 0)).toBe(-1);
    expect(errno()).toBe(errnos.EAFNOSUPPORT);
    expect(kernel.recvmmsg(-1, 0, 0, 0)).toBe(-1);
    expect(kernel.errno()).toBe(EBADF);
    expect(kernel.sendmmsg(-1, 0, 0, 0)).toBe(-1);
    expect(kernel.errno()).toBe(EBADF);
  });
});
