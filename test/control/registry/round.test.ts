import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { getEventListeners } from "node:events";
import { join } from "node:path";
import fc from "fast-check";
import {
  FRAME_BYTES_MAX,
  FrameReader,
  RegistryError,
  type RegistryErrorCode,
} from "../../../src/control/registry/protocol.ts";
import {
  type RegistryOptions,
  type RegistryRound,
  registryRound,
  skippedText,
} from "../../../src/control/registry/round.ts";
import { installed } from "../../e2e/support/program.ts";
import { inTime, until } from "../../e2e/support/wait.ts";
import { openFds } from "../../support/fds.ts";
import {
  type Behaviour,
  close,
  correct,
  cutAfter,
  drip,
  frame,
  on,
  refuse,
  requireToken,
  reset,
  ScriptedRegistry,
  say,
  sayBytes,
  silent,
} from "../../support/scripted-registry.ts";

const TOKEN = "s3cret t\u00f6ken";

let registry: ScriptedRegistry;
beforeEach(async () => {
  registry = await ScriptedRegistry.listen();
});
afterEach(() => registry.close());

const ask = (
  options: Partial<RegistryOptions> = {},
  signal?: AbortSignal,
): Promise<RegistryRound> =>
  registryRound(
    {
      registry: { host: "127.0.0.1", port: registry.port },
      beaconId: 7,
      adminToken: "",
      advertise: () => "203.0.113.5:9001",
      ...options,
    },
    signal,
  );

/** What a round failed with, which is always one readable line without the token. */
async function failure(round: Promise<unknown>): Promise<RegistryError> {
  try {
    await inTime("the round ends", round);
  } catch (error) {
    expect(error).toBeInstanceOf(RegistryError);
    const { message } = error as RegistryError;
    expect(message).toStartWith("registry ");
    expect(message).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
    expect(message).not.toContain(TOKEN);
    expect(message.length).toBeLessThan(500);
    return error as RegistryError;
  }
  throw new Error("it did not fail");
}

async function expectFailure(code: RegistryErrorCode, ...words: string[]): Promise<void> {
  const error = await failure(ask());
  expect(error.code).toBe(code);
  for (const word of [`registry 127.0.0.1:${registry.port}: `, ...words])
    expect(error.message).toContain(word);
}

describe("FrameReader", () => {
  /** Everything that the chunks bring. */
  const read = (...chunks: Uint8Array[]): string[] => {
    const reader = new FrameReader();
    return chunks
      .flatMap((chunk) => [...reader.push(chunk)])
      .map((json) => Buffer.from(json).toString());
  };

  test("finds the same frames however the stream is cut", () => {
    const texts = fc.array(fc.string({ unit: "binary", maxLength: 40 }), { maxLength: 8 });
    fc.assert(
      fc.property(texts, fc.array(fc.nat(400)), (sent, cuts) => {
        const stream = Buffer.concat(sent.map((text) => frame(text)));
        const ends = [...cuts, stream.length].sort((a, b) => a - b);
        const chunks = ends.map((end, i) => stream.subarray(ends[i - 1] ?? 0, end));
        const expected = sent.map((text) => Buffer.from(text).toString());
        expect(read(...chunks)).toEqual(expected);
        expect(read(...[...stream].map((byte) => Uint8Array.of(byte)))).toEqual(expected);
      }),
    );
  });

  test("takes a frame of 1 MiB, and refuses a longer one as soon as its length is there", () => {
    const largest = "x".repeat(FRAME_BYTES_MAX);
    expect(read(frame(largest))).toEqual([largest]);
    const reader = new FrameReader();
    const header = frame("", FRAME_BYTES_MAX + 1);
    expect([...reader.push(header.subarray(0, 3))]).toEqual([]);
    expect(() => [...reader.push(header.subarray(3))]).toThrow("1048577 bytes");
  });

  test("looks at nothing behind the frame that was asked for", () => {
    const stream = Buffer.concat([frame("first"), frame("", 0xffff_ffff)]);
    const frames = new FrameReader().push(stream);
    expect(Buffer.from(frames.next().value!).toString()).toBe("first");
    expect(() => frames.next()).toThrow(RegistryError);
  });

  test("keeps no hold of the chunk", () => {
    const chunk = frame("kept");
    const [json] = [...new FrameReader().push(chunk)];
    chunk.fill(0);
    expect(Buffer.from(json!).toString()).toBe("kept");
  });
});

describe("a round", () => {
  test("registers, then lists", async () => {
    registry.registered.set(8, "beacon.example:9001");
    const locals: string[] = [];
    const advertise = (local: string) => {
      locals.push(local);
      return `${local}:9001`;
    };
    expect(await ask({ advertise })).toEqual({
      advertised: "127.0.0.1:9001",
      beacons: [
        { id: 8, addr: "beacon.example:9001" },
        { id: 7, addr: "127.0.0.1:9001" },
      ],
      skipped: 0,
      firstSkipped: "",
    });
    expect(locals).toEqual(["127.0.0.1"]);
    expect(registry.requests).toEqual([
      { type: "beacon_register", beacon_id: 7, addr: "127.0.0.1:9001" },
      { type: "beacon_list" },
    ]);
    expect(registry.connections).toBe(1);
    await until("the connection is closed", () => registry.openConnections === 0);
  });

  test("brings the token, if there is one", async () => {
    registry.behaviour = requireToken(TOKEN);
    await ask({ adminToken: TOKEN });
    expect(registry.requests[0]).toHaveProperty("admin_token", TOKEN);
    expect((await failure(ask())).code).toBe("refused");
    expect(registry.requests[2]).not.toHaveProperty("admin_token");
  });

  test("goes to a registry by name, and to one on IPv6", async () => {
    await ask({ registry: { host: "localhost", port: registry.port } });
    const error = await failure(ask({ registry: { host: "::1", port: registry.port } }));
    expect(error.message).toStartWith(`registry [::1]:${registry.port}: connection refused`);
  });

  test("for the lowest and the highest id", async () => {
    for (const beaconId of [0, 2 ** 32 - 1])
      expect((await ask({ beaconId })).beacons).toContainEqual({
        id: beaconId,
        addr: "203.0.113.5:9001",
      });
  });

  test("takes answers byte by byte, and both in one piece", async () => {
    registry.behaviour = drip(0);
    const { beacons } = await ask();
    expect(beacons).toHaveLength(1);
    const answers = [
      { type: "beacon_register_ok", beacon_id: 7 },
      { type: "beacon_list_ok", beacons: [] },
    ].map((answer) => frame(JSON.stringify(answer)));
    registry.behaviour = on("beacon_register", sayBytes(Buffer.concat(answers)));
    expect((await ask()).beacons).toEqual([]);
  });

  test("ignores whatever comes behind the last answer", async () => {
    const list = frame('{"type":"beacon_list_ok","beacons":[]}');
    for (const behind of [frame("not JSON"), frame("", 0xffff_ffff), Buffer.alloc(200_000, "x")]) {
      registry.behaviour = on("beacon_list", sayBytes(Buffer.concat([list, behind])));
      expect((await ask()).beacons).toEqual([]);
    }
  });

  test("ignores fields that it does not know, and keeps none of them", async () => {
    const entry = '{"id":1,"addr":"a:1","region":"eu","__proto__":{"id":2},"toString":null}';
    registry.behaviour = (request, connection) =>
      request.type === "beacon_list"
        ? connection.send(
            frame(`{"type":"beacon_list_ok","error":1,"beacons":[${entry}],"__proto__":5}`),
          )
        : connection.answer({
            ...connection.registry.correctAnswer(request),
            error: "none",
            version: 2,
          });
    const { beacons } = await ask();
    expect(beacons).toEqual([{ id: 1, addr: "a:1" }]);
    expect(Object.keys(beacons[0]!)).toEqual(["id", "addr"]);
  });

  test("takes the longest list and the longest address, in their order and as they are", async () => {
    const beacons = Array.from({ length: 10_000 }, (_, i) => ({
      id: (i * 7) % 1000,
      addr: `h${i}:1`,
    }));
    beacons[5]!.addr = "ü".repeat(300);
    registry.behaviour = on("beacon_list", say({ type: "beacon_list_ok", beacons }));
    expect((await ask()).beacons).toEqual(beacons);
  });
});

describe("a registry that cannot be had", () => {
  test("nobody listens there", async () => {
    const { port } = registry;
    await registry.close();
    const error = await failure(ask());
    expect(error.code).toBe("unreachable");
    expect(error.message).toBe(
      `registry 127.0.0.1:${port}: connection refused (ECONNREFUSED): check that the registry runs, the route to it, and --registry`,
    );
    registry = await ScriptedRegistry.listen();
  });

  test("there is no such host", async () => {
    const error = await failure(ask({ registry: { host: "registry.invalid", port: 1 } }));
    expect(error.code).toBe("unreachable");
    expect(error.message).toContain("registry registry.invalid:1: no such host (");
    expect(error.message).toContain("check --registry");
  });

  test("an address that nobody can connect to", async () => {
    // A link-local address says nothing without its link; what the kernel makes of it differs.
    const error = await failure(ask({ registry: { host: "fe80::1", port: 1 }, connectMs: 200 }));
    expect(["unreachable", "timeout"]).toContain(error.code);
    expect(error.message).toStartWith("registry [fe80::1]:1: ");
    expect(error.message).toContain("check --registry");
  });

  test.skipIf(!installed("python3"))("nobody takes the connection (needs python3)", async () => {
    // It accepts nothing; once its queue is full, the kernel lets further connections wait.
    const source = `
import socket, sys
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(0)
print(listener.getsockname()[1], flush=True)
sys.stdin.read()`;
    const listener = Bun.spawn(["python3", "-c", source], { stdin: "pipe", stdout: "pipe" });
    const { value } = await listener.stdout.getReader().read();
    const address = { host: "127.0.0.1", port: Number(new TextDecoder().decode(value)) };
    const options = { registry: address, connectMs: 300, roundMs: 600 };
    const errors = await Promise.all(Array.from({ length: 8 }, () => failure(ask(options))));
    listener.kill();
    await listener.exited;
    expect(errors.map(({ code }) => code)).toEqual(errors.map(() => "timeout"));
    const messages = errors.map(({ message }) => message);
    expect(messages).toContain(
      `registry 127.0.0.1:${address.port}: gave no connection in 300 ms: ` +
        "is a firewall in between? check --registry",
    );
  });
});

describe("a registry that goes away", () => {
  test.each<[string, Behaviour, string]>([
    ["before the first answer", close, "beacon_register"],
    ["with a reset", reset, "beacon_register"],
    ["within the first header", cutAfter(3), "beacon_register"],
    ["behind the first header", cutAfter(4), "beacon_register"],
    ["within the first answer", cutAfter(20), "beacon_register"],
    ["behind the first answer", on("beacon_register", cutAfter(1000)), "beacon_list"],
    ["before the second answer", on("beacon_list", close), "beacon_list"],
    ["with a reset at the second", on("beacon_list", reset), "beacon_list"],
    ["within the second answer", on("beacon_list", cutAfter(20)), "beacon_list"],
  ])("%s", async (_, behaviour, question) => {
    registry.behaviour = behaviour;
    await expectFailure(
      "closed",
      "closed the connection",
      `in place of a whole answer to ${question}`,
      "check --registry",
    );
  });

  test("before it is asked anything", async () => {
    registry.welcome = (connection) => connection.end();
    await expectFailure("closed");
    registry.welcome = (connection) => connection.reset();
    await expectFailure("closed");
  });
});

describe("a registry that is slow", () => {
  test.each<[string, Behaviour, string]>([
    ["never answers", silent, "beacon_register"],
    ["never lists", on("beacon_list", silent), "beacon_list"],
    ["sends byte after byte", on("beacon_list", drip(20)), "beacon_list"],
    ["announces what never comes", sayBytes(frame("{", 1000)), "beacon_register"],
  ])("%s", async (_, behaviour, question) => {
    registry.behaviour = behaviour;
    const error = await failure(ask({ roundMs: 1000 }));
    expect(error.code).toBe("timeout");
    expect(error.message).toContain(`gave no whole answer to ${question} in 1000 ms`);
    await until("the connection is closed", () => registry.openConnections === 0);
  });
});

test("a registry may take its time once it is connected", async () => {
  registry.behaviour = on("beacon_list", async (request, connection) => {
    await Bun.sleep(1100);
    correct(request, connection);
  });
  expect((await ask({ connectMs: 1000 })).beacons).toHaveLength(1);
});

describe("a registry that refuses", () => {
  test("the registration: its words, and where to look", async () => {
    registry.behaviour = refuse("unauthorized");
    await expectFailure("refused", 'beacon_register with "unauthorized"', "--registry-admin-token");
  });

  test("the list", async () => {
    registry.behaviour = on("beacon_list", refuse("rate limit"));
    await expectFailure("refused", 'beacon_list with "rate limit"', "registry's log");
  });

  test("in words that are no line", async () => {
    for (const words of ["", "a\nb\x1b[31m\u2028\u202e", "x".repeat(1_000_000), "\ud800"]) {
      registry.behaviour = refuse(words);
      await expectFailure("refused");
    }
  });

  test("and repeats the token", async () => {
    const repeats = [
      TOKEN,
      `bad token "${TOKEN}".`,
      `${"x".repeat(95)}${TOKEN}`,
      TOKEN.repeat(1000),
    ];
    for (const words of repeats) {
      registry.behaviour = refuse(words);
      const { code, message } = await failure(ask({ adminToken: TOKEN }));
      expect(code).toBe("refused");
      expect(message).toContain("a text that repeats the token");
      expect(message).not.toContain("s3c");
    }
    for (const bytes of [
      frame(TOKEN),
      frame(JSON.stringify(TOKEN)),
      frame(`{"type":"${TOKEN}"}`),
    ]) {
      registry.behaviour = sayBytes(bytes);
      expect((await failure(ask({ adminToken: TOKEN }))).code).toBe("invalid");
    }
  });
});

describe("what is no answer", () => {
  const registered = { type: "beacon_register_ok", beacon_id: 7 };
  const listed = (...beacons: unknown[]) => ({ type: "beacon_list_ok", beacons });
  const good = { id: 1, addr: "a:1" };

  test.each<[unknown, string]>([
    [null, "the top"],
    [5, "the top"],
    [{}, "type"],
    [[registered], "type"],
    [{ type: 5 }, "type"],
    [{ type: "error" }, "type"],
    [{ type: "error", error: 5 }, "type"],
    [listed(), "type"],
    [{ type: "beacon_register_ok" }, "beacon_id"],
    [{ ...registered, beacon_id: 8 }, "beacon_id"],
    [{ ...registered, beacon_id: "7" }, "beacon_id"],
  ])("to beacon_register: %j", async (answer, place) => {
    registry.behaviour = say(answer);
    await expectFailure(
      "invalid",
      `answers beacon_register wrongly, at ${place}, where {"type":"beacon_register_ok","beacon_id":7} was expected`,
    );
  });

  test.each<[unknown, string]>([
    [registered, "type"],
    [{ type: "beacon_list_ok" }, "beacons"],
    [{ type: "beacon_list_ok", beacons: null }, "beacons"],
    [{ type: "beacon_list_ok", beacons: { 0: good } }, "beacons"],
  ])("to beacon_list: %j", async (answer, place) => {
    registry.behaviour = on("beacon_list", say(answer));
    await expectFailure(
      "invalid",
      `answers beacon_list wrongly, at ${place}, where {"type":"beacon_list_ok"`,
    );
  });

  test.each<[unknown]>([
    [null],
    [0],
    [[1, "a:1"]],
    [{ addr: "a:1" }],
    [{ ...good, id: -1 }],
    [{ ...good, id: 2 ** 32 }],
    [{ ...good, id: 1.5 }],
    [{ ...good, id: "1" }],
    [{ id: 1 }],
    [{ ...good, addr: null }],
    [{ ...good, addr: 5 }],
    [{ ...good, addr: "x".repeat(301) }],
  ])(
    "a listed entry that is no beacon is skipped and named, and the others are kept: %j",
    async (bad) => {
      const last = { id: 2, addr: "b:2" };
      registry.behaviour = on("beacon_list", say(listed(bad, good, bad, last)));
      const round = await ask();
      expect(round.beacons).toEqual([good, last]);
      expect(round.skipped).toBe(2);
      const text = skippedText(round);
      expect(text).toStartWith("lists 4 beacons, of which 2 are skipped, such as ");
      expect(text).toContain(JSON.stringify(bad).replaceAll('"', '\\"').slice(0, 20));
      expect(text.length).toBeLessThan(500);
    },
  );

  test("a listed entry that is nested too deeply to be shown is skipped as well", async () => {
    const deep = "[".repeat(200_000) + "]".repeat(200_000);
    const list = frame(`{"type":"beacon_list_ok","beacons":[${deep},${JSON.stringify(good)}]}`);
    registry.behaviour = on("beacon_list", sayBytes(list));
    const round = await ask();
    expect(round).toMatchObject({ beacons: [good], skipped: 1 });
    expect(skippedText(round)).toContain("such as one that is nested too deeply: ");
  });

  test("too many beacons, good or bad", async () => {
    for (const beacon of [good, 0]) {
      const beacons = Array.from({ length: beacon === good ? 10_001 : 500_000 }, () => beacon);
      registry.behaviour = on("beacon_list", say(listed(...beacons)));
      await expectFailure("invalid", "at beacons, where", "at most 10000 beacons");
    }
  });

  test("an answer that was not asked for", async () => {
    registry.welcome = (connection) => connection.answer(listed());
    await expectFailure("invalid", "answers beacon_register wrongly, at type");
  });

  test.each<[string, Uint8Array, string]>([
    ["nothing", frame(""), "what is not JSON"],
    ["half an object", frame('{"type":'), "what is not JSON"],
    ["two objects", frame("{}{}"), "what is not JSON"],
    ["bad UTF-8", frame(Uint8Array.of(0x22, 0xc3, 0x28, 0x22)), "what is not UTF-8"],
    [
      "a number that overflows",
      frame('{"type":"beacon_register_ok","beacon_id":1e999}'),
      "at beacon_id",
    ],
    ["arrays in arrays", frame("[".repeat(FRAME_BYTES_MAX)), "answers beacon_register"],
    [
      "arrays in arrays, all closed",
      frame("[".repeat(FRAME_BYTES_MAX / 2) + "]".repeat(FRAME_BYTES_MAX / 2)),
      "answers beacon_register",
    ],
    [
      "objects in objects",
      frame('{"type":'.repeat(FRAME_BYTES_MAX / 8)),
      "answers beacon_register",
    ],
  ])("%s", async (_, bytes, words) => {
    registry.behaviour = sayBytes(bytes);
    await expectFailure("invalid", words, "is this a registry? check --registry");
  });

  test("depth in a field that nobody knows", async () => {
    const depth = 100_000;
    const deep = `${"[".repeat(depth)}${"]".repeat(depth)}`;
    const json = `{"type":"beacon_register_ok","beacon_id":7,"extra":${deep}}`;
    registry.behaviour = on("beacon_register", sayBytes(frame(json)));
    const outcome = await ask().catch((error) => error);
    if (outcome instanceof Error) expect(outcome).toBeInstanceOf(RegistryError);
    else expect(outcome.beacons).toHaveLength(0);
  });

  test("a message of more than 1 MiB, or another protocol", async () => {
    registry.behaviour = sayBytes(frame("", FRAME_BYTES_MAX + 1));
    await expectFailure("too_big", "a message of 1048577 bytes", "is this a registry?");
    registry.behaviour = sayBytes(Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"));
    await expectFailure("too_big", "is this a registry?");
  });
});

describe("abort", () => {
  test.each<[string, () => void]>([
    ["while it waits for an answer", () => (registry.behaviour = silent)],
    ["while an answer drips in", () => (registry.behaviour = drip(5))],
  ])("%s", async (_, prepare) => {
    prepare();
    const controller = new AbortController();
    const round = ask({}, controller.signal);
    await until("the registry is asked", () => registry.requests.length > 0);
    controller.abort(new Error("the beacon closes"));
    await expect(round).rejects.toThrow("the beacon closes");
    await until("the connection is closed", () => registry.openConnections === 0);
  });

  test("while it connects", async () => {
    for (const host of ["127.0.0.1", "localhost", "registry.invalid"]) {
      const controller = new AbortController();
      const round = ask({ registry: { host, port: registry.port } }, controller.signal);
      controller.abort(new Error("the beacon closes"));
      await expect(round).rejects.toThrow("the beacon closes");
    }
    await until("the connections are closed", () => registry.openConnections === 0);
  });

  test("before it starts: it never connects", async () => {
    await expect(ask({}, AbortSignal.abort(new Error("closed")))).rejects.toThrow("closed");
    await ask();
    expect(registry.connections).toBe(1);
  });

  test("after it ended: nothing", async () => {
    const controller = new AbortController();
    const { beacons } = await ask({}, controller.signal);
    expect(getEventListeners(controller.signal, "abort")).toEqual([]);
    controller.abort();
    expect(beacons).toHaveLength(1);
  });
});

test("an error of advertise comes through, and the connection is closed", async () => {
  const advertise = () => {
    throw new TypeError("no address");
  };
  await expect(ask({ advertise })).rejects.toThrow(TypeError);
  await until(
    "the connection is closed",
    () => registry.connections > 0 && registry.openConnections === 0,
  );
  expect(registry.requests).toEqual([]);
});

test("nothing is left of rounds that keeps a process alive, or ends it with an error", async () => {
  const source = join(import.meta.dir, "../../../src/control/registry/round.ts");
  const script = `
    import { registryRound } from ${JSON.stringify(source)};
    const round = (port, signal) =>
      registryRound({ registry: { host: "127.0.0.1", port }, beaconId: 7, adminToken: "", advertise: String,
        connectMs: 600_000, roundMs: 600_000 }, signal).catch((error) => String(error));
    const { beacons } = await round(${registry.port});
    const aborted = round(${registry.port}, AbortSignal.timeout(50));
    console.log(beacons.length);
    console.log(await round(1));
    console.log(await aborted);`;
  registry.behaviour = (request, connection) => {
    if (registry.connections === 1) correct(request, connection);
  };
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "pipe" });
  const [out, err, status] = await inTime(
    "the process ends by itself",
    Promise.all([child.stdout.text(), child.stderr.text(), child.exited]),
  );
  expect({ err, status }).toEqual({ err: "", status: 0 });
  expect(out).toMatch(
    /^1\nRegistryError: registry 127.0.0.1:1: connection refused .*\nTimeoutError: .*\n$/,
  );
});

describe("anything that a registry may send", () => {
  const ROUNDS = 10_000;
  /** More than one, so that the file is done soon; few enough for a host's limit on open files. */
  const AT_ONCE = 64;

  const damage = fc.record({ at: fc.nat(), drop: fc.nat(3), put: fc.uint8Array({ maxLength: 3 }) });
  /** Bytes dropped and put in, in some places. */
  const damaged = (bytes: Uint8Array): fc.Arbitrary<Uint8Array> =>
    fc.array(damage, { minLength: 1, maxLength: 3 }).map((damages) => {
      let all: Buffer = Buffer.from(bytes);
      for (const { at, drop, put } of damages) {
        const from = at % (all.length + 1);
        all = Buffer.concat([all.subarray(0, from), put, all.subarray(from + drop)]);
      }
      return all;
    });
  /** An answer with other values in it, some nearly right. */
  const reshaped = (answer: object): fc.Arbitrary<object> => {
    const value = fc.oneof(
      fc.jsonValue(),
      fc.double(),
      fc.array(fc.record({ id: fc.integer({ min: -2 }), addr: fc.string() }, { requiredKeys: [] })),
    );
    const key = fc.constantFrom("type", "error", ...Object.keys(answer));
    return fc
      .dictionary(key, value, { minKeys: 1, maxKeys: 2 })
      .map((other) => ({ ...answer, ...other }));
  };
  const bytesFor = (answer: object): fc.Arbitrary<Uint8Array> => {
    const json = Buffer.from(JSON.stringify(answer));
    const whole = frame(json);
    return fc.oneof(
      { arbitrary: fc.constant(whole), weight: 4 },
      damaged(json).map((bytes) => frame(bytes)),
      damaged(whole),
      fc.nat(whole.length).map((end) => whole.subarray(0, end)),
      fc.uint8Array({ maxLength: 200 }),
      fc.jsonValue().map((value) => frame(JSON.stringify(value))),
      fc.string({ unit: "binary" }).map((error) => frame(JSON.stringify({ type: "error", error }))),
      reshaped(answer).map((value) => frame(JSON.stringify(value))),
      fc.uint8Array({ maxLength: 10 }).map((bytes) => Buffer.concat([whole, bytes])),
    );
  };
  const listed = [1, 2, 3].map((id) => ({ id, addr: `192.0.2.${id}:9001` }));
  const script = fc.record({
    toRegister: bytesFor({ type: "beacon_register_ok", beacon_id: 7 }),
    toList: bytesFor({ type: "beacon_list_ok", beacons: listed }),
    /** In parts of this many bytes. */
    partBytes: fc.constantFrom(1, 5, 1000, 1000),
    ending: fc.oneof(
      { arbitrary: fc.constant("end" as const), weight: 60 },
      { arbitrary: fc.constant("reset" as const), weight: 10 },
      { arbitrary: fc.constant("stay" as const), weight: 1 },
    ),
  });
  type Script = typeof script extends fc.Arbitrary<infer S> ? S : never;

  /** Whether a beacon has something to go on with; for less it would wait until the end. */
  const holdsFrame = (bytes: Uint8Array): boolean =>
    bytes.length >= 4 && bytes.length - 4 >= Buffer.from(bytes).readUInt32BE();

  /** The script's number is in the address that a round registers, for many go on at once. */
  const follow = (scripts: readonly Script[]): Behaviour => {
    const numbers = new WeakMap<object, number>();
    return async ({ type, addr }, connection) => {
      const number = numbers.get(connection) ?? Number(addr);
      numbers.set(connection, number);
      const { toRegister, toList, partBytes, ending } = scripts[number]!;
      const bytes = type === "beacon_register" ? toRegister : toList;
      for (let at = 0; at < bytes.length; at += partBytes) {
        connection.send(bytes.subarray(at, at + partBytes));
        if (at % 16 === 0) await Bun.sleep(0); // so that not all parts arrive as one
      }
      if (type === "beacon_register" && holdsFrame(bytes)) return;
      if (ending === "end") connection.end();
      if (ending === "reset") connection.reset();
    };
  };

  test("ends in a round or in one error, soon, and leaves nothing open", async () => {
    await ask();
    const fdsBefore = openFds();
    const scripts = fc.sample(script, { numRuns: ROUNDS, seed: 20_261_122 });
    registry.behaviour = follow(scripts);
    const outcomes = new Map<string, number>();
    const outcome = async (index: number): Promise<string> => {
      const round = ask({ advertise: () => String(index), roundMs: 500 });
      const result = await inTime(`round ${index}`, round).catch((error) => error);
      if (result instanceof Error) return (await failure(Promise.reject(result))).code;
      expect(result.advertised).toBe(String(index));
      for (const { id, addr } of result.beacons) {
        expect(id >>> 0).toBe(id);
        expect(addr).toBeString();
      }
      return "valid";
    };
    let next = 0;
    const runner = async () => {
      while (next < ROUNDS) {
        const name = await outcome(next++);
        outcomes.set(name, (outcomes.get(name) ?? 0) + 1);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, runner));
    // Or else the scripts are not what they are meant to be.
    for (const name of ["valid", "timeout", "closed", "refused", "invalid", "too_big"])
      expect({ name, seen: (outcomes.get(name) ?? 0) > 10 }).toEqual({ name, seen: true });
    await until("all that was opened is closed", () => openFds().size <= fdsBefore.size);
  });
});
