import { describe, expect, test } from "bun:test";
import { FAILS, GONE, LineRing, WRITES } from "../../../src/control/log/line-ring.ts";
import { writeNext } from "../../../src/control/log/output-thread.ts";

/**
 * A kernel that follows a script: a number is how many bytes it takes, a string is the error it
 * gives.
 */
function scripted(script: (number | string)[]) {
  const ring = new LineRing(new SharedArrayBuffer(LineRing.bufferBytes));
  const room = new Uint8Array(16);
  let taken = "";
  let calls = 0;
  let sleeps = 0;
  const writeSome = (bytes: Uint8Array): number => {
    calls++;
    const step = script.shift() ?? bytes.length;
    if (typeof step === "string") throw Object.assign(new Error(step), { code: step });
    taken += new TextDecoder().decode(bytes.subarray(0, step));
    return step;
  };
  return {
    ring,
    /** Puts lines and writes what comes next. */
    write: (...lines: string[]) => {
      for (const line of lines) expect(ring.put(Buffer.from(line))).toBe(true);
      writeNext(ring, room, writeSome, () => sleeps++);
    },
    taken: () => taken,
    calls: () => calls,
    sleeps: () => sleeps,
  };
}

describe("writeNext", () => {
  test("finishes a line that the kernel took in parts", () => {
    const { ring, write, taken, calls } = scripted([1, 2]);
    write("abcdef\n");
    expect(taken()).toBe("abcdef\n");
    expect(calls()).toBe(3);
    expect(ring.usedBytes).toBe(0);
  });

  test("writes as many whole lines at a time as fit, and a line that is longer in parts", () => {
    const { ring, write, taken } = scripted([]);
    write("123456789\n", "abcdefgh\n", `${"x".repeat(20)}\n`);
    expect(taken()).toBe("123456789\n");
    write();
    expect(taken()).toBe("123456789\nabcdefgh\n");
    write();
    write();
    expect(taken()).toBe(`123456789\nabcdefgh\n${"x".repeat(20)}\n`);
    expect(ring.usedBytes).toBe(0);
  });

  test("retries for as long as the descriptor is full, and sleeps between two tries", () => {
    const { write, taken, sleeps } = scripted(["EAGAIN", 1, "EAGAIN", "EINTR"]);
    write("ab\n");
    expect(taken()).toBe("ab\n");
    expect(sleeps()).toBe(3);
  });

  test("loses only the lines that a full disk did not take, and counts them", () => {
    const { ring, write, taken } = scripted(["ENOSPC"]);
    write("a\n", "b\n");
    expect([ring.condition, ring.lostLines, ring.usedBytes]).toEqual([FAILS, 2, 0]);
    write("c\n");
    expect(taken()).toBe("c\n");
    expect([ring.condition, ring.lostLines]).toEqual([WRITES, 2]);
  });

  test.each(["EPIPE", "EBADF"])("%s: notes that the reader is gone for good", (code) => {
    const { ring, write } = scripted([code]);
    write("a\n");
    expect([ring.condition, ring.lostLines, ring.usedBytes]).toEqual([GONE, 1, 0]);
  });
});
