/** Clients that share no line of code with the beacon. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { UNLIMITED_FLAGS } from "./support/beacon.ts";
import { Clients } from "./support/client.ts";
import { installed, Programs } from "./support/program.ts";
import { inTime, until } from "./support/wait.ts";
import { deliver, discover, relay } from "./support/wire.ts";

const programs = new Programs();
let port = 0;
const clients = new Clients(() => ({ port }));

beforeAll(async () => {
  const beacon = programs.beacon([
    "--addr=:0",
    "--http=off",
    "--log-format=json",
    "--workers=2",
    ...UNLIMITED_FLAGS,
  ]);
  ({ port } = await beacon.listening());
});
afterAll(async () => {
  clients.close();
  await programs.kill();
});

const needs = (command: string) => (installed(command) ? "" : ` (needs ${command})`);

describe.skipIf(!installed("python3"))(`Python${needs("python3")}`, () => {
  test.each(["127.0.0.1", "::1"])("discovers, punches and relays over %s", async (host) => {
    const script = join(import.meta.dir, "support/pilot_client.py");
    const python = programs.spawn(["python3", script, host, String(port)]);
    const code = await python.exited();
    expect({ lines: python.lines, stderr: python.stderr }).toEqual({
      lines: [
        "a discovered True",
        "b discovered True",
        "a punches True",
        "b punches True",
        "b got True",
        "a got True",
      ],
      stderr: "",
    });
    expect(code).toBe(0);
  });
});

/**
 * A command-line tool that sends its standard input as datagrams and prints what comes back. Each
 * write is one datagram, so the next is written only when the answer to the last one came.
 */
async function talk(
  command: string[],
  turns: readonly { send: Uint8Array; answerBytes: number }[],
) {
  const child = Bun.spawn(command, { stdin: "pipe", stdout: "pipe", stderr: "pipe" });
  try {
    const reader = child.stdout.getReader();
    const answers: Buffer[] = [];
    for (const { send, answerBytes } of turns) {
      child.stdin.write(send);
      await child.stdin.flush();
      let answer = Buffer.alloc(0);
      while (answer.length < answerBytes) {
        const { value, done } = await inTime(`${command[0]} prints an answer`, reader.read());
        if (done) throw new Error(`${command[0]} ended early`);
        answer = Buffer.concat([answer, value]);
      }
      answers.push(answer);
    }
    return answers;
  } finally {
    child.kill();
    await child.exited;
  }
}

describe.each([
  { name: "socat", command: () => ["socat", "-T", "30", "-", `UDP4:127.0.0.1:${port}`] },
  { name: "nc", command: () => ["nc", "-u", "127.0.0.1", String(port)] },
])("$name", ({ name, command }) => {
  test.skipIf(!installed(name))(`discovers and relays to itself${needs(name)}`, async () => {
    const id = name === "nc" ? 700 : 701;
    const payload = new TextEncoder().encode(`hello from ${name}`);
    const expected = deliver(id, payload);
    const [reply, delivered] = await talk(command(), [
      { send: discover(id), answerBytes: 8 },
      { send: relay(id, id, payload), answerBytes: expected.length },
    ]);
    expect([...reply!.subarray(0, 6)]).toEqual([0x02, 4, 127, 0, 0, 1]);
    expect(Buffer.compare(delivered!, expected)).toBe(0);
  });
});

describe("a shell", () => {
  test.skipIf(!installed("bash"))(`relays with nothing but bash${needs("bash")}`, async () => {
    const client = await clients.open();
    await client.discover(800);
    // [05][sender 0x2a][dest 800 = 0x320] and a payload, as one printf and so one datagram.
    const script = `printf '\\005\\000\\000\\000\\052\\000\\000\\003\\040hello' > /dev/udp/127.0.0.1/${port}`;
    const { success } = Bun.spawnSync(["bash", "-c", script]);
    expect(success).toBe(true);
    await until("it arrives", () => client.pending > 0);
    expect(await client.message()).toEqual({
      type: "deliver",
      senderId: 42,
      payload: new Uint8Array(new TextEncoder().encode("hello")),
    });
  });
});
