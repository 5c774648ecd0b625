/** The WebSocket bridge with clients that share no line of code with the beacon or its tests. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { base64, NodeIdentity } from "../support/pilot-node.ts";
import { type Certificate, makeCertificate } from "../support/websocket.ts";
import { UNLIMITED_FLAGS } from "./support/beacon.ts";
import { Client } from "./support/client.ts";
import { installed, type Program, Programs } from "./support/program.ts";
import { inTime, until } from "./support/wait.ts";
import { deliver, relay } from "./support/wire.ts";

const [SECRET_A, SECRET_B] = [randomBytes(32), randomBytes(32)];
const [a, b] = [NodeIdentity.create(10, SECRET_A), NodeIdentity.create(20, SECRET_B)];

const hasOpenssl = installed("openssl");
const needs = (...commands: string[]) => {
  const missing = commands.filter((command) => !installed(command));
  return missing.length === 0 ? "" : ` (needs ${missing.join(", ")})`;
};

const programs = new Programs();
const folder = mkdtempSync(join(tmpdir(), "beacon-foreign-"));
let certificate: Certificate | undefined;

interface Bridged {
  readonly port: number;
  readonly wss: string;
  /** A file with the certificate to trust. */
  readonly caPath: string | undefined;
}
const beacons: Record<string, Bridged> = {};

beforeAll(async () => {
  const keys = join(folder, "keys.json");
  writeFileSync(keys, JSON.stringify({ 10: base64(a.publicKey), 20: base64(b.publicKey) }));
  const flags = ["--addr=:0", "--http=off", "--log-format=json", "--workers=2", "--max-nodes=1000"];
  const start = async (name: string, ...more: string[]) => {
    const program = programs.beacon([
      ...flags,
      ...UNLIMITED_FLAGS,
      "--wss=127.0.0.1:0",
      `--wss-keys=${keys}`,
      ...more,
    ]);
    const { port, line } = await program.listening();
    const caPath = name === "wss" ? certificate!.certPath : undefined;
    beacons[name] = { port, wss: line["wss"] as string, caPath };
  };
  await start("ws");
  if (!hasOpenssl) return;
  certificate = makeCertificate(folder, "bridge");
  await start(
    "wss",
    `--wss-tls-cert=${certificate.certPath}`,
    `--wss-tls-key=${certificate.keyPath}`,
  );
});
afterAll(async () => {
  await programs.kill();
  rmSync(folder, { recursive: true });
});

/** What a program prints, which must be all that it says, and end well. */
async function printed(program: Program): Promise<string[]> {
  const code = await program.exited();
  expect({ code, stderr: program.stderr }).toEqual({ code: 0, stderr: "" });
  return program.lines;
}

const schemes = [
  { scheme: "ws", missing: "" },
  { scheme: "wss", missing: needs("openssl") },
];

describe.each(schemes)("over $scheme", ({ scheme, missing }) => {
  const bridge = () => beacons[scheme]!;
  const hasAll = (command: string) => missing === "" && installed(command);

  test.skipIf(!hasAll("node"))(`Node with the package ws${needs("node")}${missing}`, async () => {
    const { wss, port, caPath } = bridge();
    expect(wss).toStartWith(`${scheme}://`);
    const script = join(import.meta.dir, "support/ws-node.mjs");
    const secrets = [SECRET_A, SECRET_B].map((secret) => secret.toString("hex"));
    const command = ["node", script, wss, String(port), ...secrets, ...(caPath ? [caPath] : [])];
    expect(await printed(programs.spawn(command))).toEqual([
      'a speaks pilot.v1 ""',
      "a is told auth_ok",
      "a discovered true",
      'b speaks pilot.v1 ""',
      "b is told auth_ok",
      "b discovered true",
      "c discovered true",
      "c got true",
      "a got true",
      "b got true",
      "a got the largest true",
      "a got what was in pieces true",
      "a got a pong hello",
      "the forger ends with 1008 auth failed",
      "a is told again auth_ok",
      "a ends with 1000 replaced",
      "the new a got true",
      "without the subprotocol: Unexpected server response: 400",
      "the others end with 1000 bye, 1000 bye",
    ]);
  });

  test.skipIf(missing !== "")(`Bun's own WebSocket${missing}`, async () => {
    const { wss, port } = bridge();
    const tls = certificate ? { ca: certificate.cert } : {};
    const socket = new WebSocket(wss, { protocols: ["pilot.v1"], tls } as never);
    socket.binaryType = "arraybuffer";
    const arrived: (string | ArrayBuffer)[] = [];
    socket.onmessage = ({ data }) => arrived.push(data);
    const next = async () => {
      await until("a message", () => arrived.length > 0);
      return arrived.shift()!;
    };
    const { promise: closed, resolve } = Promise.withResolvers<CloseEvent>();
    socket.onclose = resolve;
    const challenge = (await next()) as string;
    expect([socket.protocol, socket.extensions]).toEqual(["pilot.v1", ""]);
    socket.send(a.reply(challenge));
    expect(await next()).toBe('{"type":"auth_ok"}');
    const udp = await Client.open("127.0.0.1", { address: "127.0.0.1", port });
    await udp.discover(30);
    const payload = new Uint8Array(randomBytes(1200));
    socket.send(relay(10, 30, payload));
    expect(await udp.message()).toEqual({ type: "deliver", senderId: 10, payload });
    await udp.relay(30, 10, payload);
    expect(Buffer.compare(Buffer.from((await next()) as ArrayBuffer), deliver(30, payload))).toBe(
      0,
    );
    udp.close();
    socket.close(1000, "bye");
    expect((await inTime("it closes", closed)).code).toBe(1000);
  });

  test.skipIf(!hasAll("curl"))(
    `curl asks whether it is well${needs("curl")}${missing}`,
    async () => {
      const { wss, caPath } = bridge();
      const url = (path: string) => wss.replace("ws", "http").replace("/v1/compat", path);
      const curl = async (path: string, ...flags: string[]) => {
        const trust = caPath ? ["--cacert", caPath] : [];
        const command = [
          "curl",
          "-sS",
          "--max-time",
          "10",
          "--noproxy",
          "*",
          "-w",
          "%{http_code}",
          ...trust,
        ];
        return printed(programs.spawn([...command, ...flags, url(path)]));
      };
      expect(await curl("/health")).toEqual(["ok", "200"]);
      expect((await curl("/")).at(-1)).toBe("404");
      expect((await curl("/v1/compat")).at(-1)).toBe("426");
      expect((await curl("/health", "--http1.0")).at(-1)).toBe("200");
      expect((await curl("/health", "-X", "POST", "-d", "hello")).at(-1)).toBe("413");
    },
  );
});

test.skipIf(!installed("python3"))(
  `Python with its standard library alone, which cannot sign: refused as it should be${needs("python3")}`,
  async () => {
    const { port } = new URL(beacons["ws"]!.wss);
    // Ed25519 is not in it, so all it can bring is 64 bytes; the rest of the handshake is checked
    // to the letter.
    const script = `
import base64, hashlib, json, os, socket, struct, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
stream = s.makefile("rb")
key = base64.b64encode(os.urandom(16)).decode()
s.sendall((
    "GET /v1/compat HTTP/1.1\\r\\nHost: 127.0.0.1:" + sys.argv[1] + "\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
    "Sec-WebSocket-Key: " + key + "\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Protocol: pilot.v1\\r\\n\\r\\n"
).encode())
print(stream.readline().decode().strip())
headers = {}
while True:
    line = stream.readline().decode().strip()
    if not line:
        break
    name, value = line.split(": ", 1)
    headers[name.lower()] = value
accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
print("accepts", headers["sec-websocket-accept"] == accept)
print("speaks", headers["sec-websocket-protocol"], headers.get("sec-websocket-extensions"))

def frame():
    first, length = stream.read(2)
    if length == 126:
        (length,) = struct.unpack("!H", stream.read(2))
    return first, stream.read(length)

def send(opcode, payload):
    mask = os.urandom(4)
    head = bytes([0x80 | opcode])
    head += bytes([0x80 | len(payload)]) if len(payload) < 126 else struct.pack("!BH", 0x80 | 126, len(payload))
    s.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

first, text = frame()
challenge = json.loads(text)
print(hex(first), sorted(challenge), challenge["type"], len(challenge["nonce"]), type(challenge["ts"]).__name__)
sig = base64.b64encode(bytes(64)).decode()
send(1, json.dumps({"type": "auth_reply", "node_id": 10, "public_key": "", "sig": sig}).encode())
first, payload = frame()
print(hex(first), struct.unpack("!H", payload[:2])[0], payload[2:].decode())
send(8, payload[:2])
print("ended", stream.read() == b"")
`;
    expect(await printed(programs.spawn(["python3", "-c", script, port]))).toEqual([
      "HTTP/1.1 101 Switching Protocols",
      "accepts True",
      "speaks pilot.v1 None",
      "0x81 ['nonce', 'ts', 'type'] auth_challenge 64 int",
      "0x88 1008 auth failed",
      "ended True",
    ]);
  },
);
