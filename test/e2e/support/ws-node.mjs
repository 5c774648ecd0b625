/**
 * Nodes in plain Node, with the npm package ws: they prove who they are, discover, relay to each other and to a node by UDP, and
 * print what they got, one line each. Knows nothing of the beacon but the wire.
 *
 *   node ws-node.mjs WSS_URL UDP_PORT SECRET_A SECRET_B [FILE_OF_THE_CA]
 *
 * A is node 10, B is node 20, each with its secret key of 32 bytes in hexadecimal; UDP is spoken at 127.0.0.1.
 */
import { createPrivateKey, sign } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import WebSocket from "ws";

const [url, udpPort, secretA, secretB, caPath] = process.argv.slice(2);
const [ID_A, ID_B, ID_C] = [10, 20, 30];
const options = caPath ? { ca: readFileSync(caPath) } : {};

const keyOf = (secret) => {
  const pkcs8 = Buffer.concat([
    Buffer.from("302e020100300506032b657004220420", "hex"),
    Buffer.from(secret, "hex"),
  ]);
  return createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" });
};

/** A connection whose messages are waited for one by one. */
class Node {
  #arrived = [];
  #wake = () => {};

  constructor(protocols = "pilot.v1") {
    this.socket = new WebSocket(url, protocols, options);
    this.opened = new Promise((resolve) => this.socket.once("open", resolve));
    this.closed = new Promise((resolve) =>
      this.socket.once("close", (code, reason) => resolve(`${code} ${reason}`)),
    );
    this.socket.on("message", (data, isBinary) => {
      this.#arrived.push({ data, isBinary });
      this.#wake();
    });
  }

  async next(isBinary = true) {
    while (this.#arrived.length === 0) await new Promise((resolve) => (this.#wake = resolve));
    const message = this.#arrived.shift();
    if (message.isBinary !== isBinary)
      throw new Error(`not the sort of message that was expected: ${message.data}`);
    return message.data;
  }

  /** Answers the challenge. */
  async reply(id, key, text = (ts, nonce) => `compat_auth:${id}:${ts}:${nonce}`) {
    const { type, nonce, ts } = JSON.parse(await this.next(false));
    if (type !== "auth_challenge") throw new Error(`no challenge: ${type}`);
    const sig = sign(null, Buffer.from(text(ts, nonce)), key).toString("base64");
    this.socket.send(JSON.stringify({ type: "auth_reply", node_id: id, public_key: "", sig }));
  }
}

const packet = (type, ids, payload = Buffer.alloc(0)) => {
  const head = Buffer.alloc(1 + 4 * ids.length, type);
  for (const [i, id] of ids.entries()) head.writeUInt32BE(id, 1 + 4 * i);
  return Buffer.concat([head, payload]);
};
const discover = (id) => packet(0x01, [id]);
const relay = (from, to, payload) => packet(0x05, [from, to], payload);
const delivered = (from, payload) => packet(0x06, [from], payload);
const payload = Buffer.from(Array.from({ length: 1200 }, (_, i) => i % 251));
const print = (what, value) => console.log(what, value);

const a = new Node();
const b = new Node(["chat", "pilot.v1"]);
for (const [name, node, id, secret] of [
  ["a", a, ID_A, secretA],
  ["b", b, ID_B, secretB],
]) {
  await node.opened;
  print(`${name} speaks`, `${node.socket.protocol} ${JSON.stringify(node.socket.extensions)}`);
  const older = name === "b" ? (_, nonce) => `compat_auth:${id}:${nonce}` : undefined;
  await node.reply(id, keyOf(secret), older);
  print(`${name} is told`, JSON.parse(await node.next(false)).type);
  node.socket.send(discover(id));
  const reply = await node.next();
  const { localPort } = node.socket._socket;
  print(
    `${name} discovered`,
    reply.equals(Buffer.from([2, 4, 127, 0, 0, 1, localPort >> 8, localPort & 255])),
  );
}

const c = createSocket("udp4");
const received = () => once(c, "message").then(([message]) => message);
c.bind(0, "127.0.0.1");
await once(c, "listening");
c.send(discover(ID_C), udpPort, "127.0.0.1");
print("c discovered", (await received())[0] === 2);

a.socket.send(relay(ID_A, ID_C, payload));
print("c got", (await received()).equals(delivered(ID_A, payload)));
c.send(relay(ID_C, ID_A, payload), udpPort, "127.0.0.1");
print("a got", (await a.next()).equals(delivered(ID_C, payload)));
a.socket.send(relay(ID_A, ID_B, payload));
print("b got", (await b.next()).equals(delivered(ID_A, payload)));

const large = Buffer.alloc(65_536 - 9, 7);
b.socket.send(relay(ID_B, ID_A, large));
print("a got the largest", (await a.next()).equals(delivered(ID_B, large)));
const whole = relay(ID_B, ID_A, payload);
b.socket.send(whole.subarray(0, 500), { fin: false });
b.socket.send(whole.subarray(500));
print("a got what was in pieces", (await a.next()).equals(delivered(ID_B, payload)));
a.socket.ping("hello");
print("a got a pong", String((await once(a.socket, "pong"))[0]));

// Somebody who would be A.
const forger = new Node();
await forger.reply(ID_A, keyOf(secretB));
print("the forger ends with", await forger.closed);
// And A itself, for a second time.
const again = new Node();
await again.reply(ID_A, keyOf(secretA));
print("a is told again", JSON.parse(await again.next(false)).type);
print("a ends with", await a.closed);
b.socket.send(relay(ID_B, ID_A, payload));
print("the new a got", (await again.next()).equals(delivered(ID_B, payload)));

const none = new Node("chat");
print("without the subprotocol:", (await once(none.socket, "error"))[0].message);

for (const node of [again, b]) node.socket.close(1000, "bye");
print("the others end with", `${await again.closed}, ${await b.closed}`);
c.close();
