/**
 * A DNS server on a loopback address that answers, fails or is silent as a test says. What it was
 * asked stays on record.
 *
 *   const server = await NameServer.listen();
 *   server.hosts.set("beacon.example", ["192.0.2.1", "2001:db8::1"]);
 *   …
 *   server.close();
 */
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { isIP } from "node:net";
import ipaddr from "ipaddr.js";

export type QuestionType = "A" | "AAAA";
/** RFC 1035, 4.1.1. */
const RCODES = { SERVFAIL: 2, NXDOMAIN: 3, REFUSED: 5 } as const;
/** Replies in place of a right answer. */
export type Failure = keyof typeof RCODES | "silent";

const TYPES: Readonly<Record<number, QuestionType>> = { 1: "A", 28: "AAAA" };
const HEADER_BYTES = 12;
/** Far longer than a test: who caches an answer does not see that a name moves. */
const TTL_S = 3600;

export class NameServer {
  /** Addresses by name, in small letters; a name that is not here does not exist. */
  readonly hosts = new Map<string, readonly string[]>();
  /** Asked for each question. */
  failure: (name: string, type: QuestionType) => Failure | undefined = () => undefined;
  /** Every question: "A beacon.example". */
  readonly asked: string[] = [];

  /** "address:port" */
  readonly at: string;

  private constructor(private readonly socket: Socket) {
    const { address, port } = socket.address();
    this.at = `${address}:${port}`;
    socket.on("message", (question, from) => {
      const answer = this.#answer(question);
      if (answer !== undefined) socket.send(answer, from.port, from.address);
    });
  }

  /** @param port that resolv.conf knows is 53 alone */
  static async listen(address = "127.0.0.1", port = 0): Promise<NameServer> {
    const socket = createSocket("udp4");
    socket.bind(port, address);
    await once(socket, "listening");
    return new NameServer(socket);
  }

  close(): void {
    this.socket.close();
  }

  #answer(question: Buffer): Buffer | undefined {
    const labels: string[] = [];
    let at = HEADER_BYTES;
    for (let bytes = question[at]!; bytes > 0; bytes = question[at]!) {
      labels.push(question.toString("latin1", at + 1, at + 1 + bytes));
      at += 1 + bytes;
    }
    const name = labels.join(".").toLowerCase();
    const type = TYPES[question.readUInt16BE(at + 1)];
    if (type === undefined) throw new Error("a question that the tests do not know");
    this.asked.push(`${type} ${name}`);
    const failure = this.failure(name, type);
    if (failure === "silent") return undefined;
    const found = this.hosts.get(name);
    const rcode =
      failure !== undefined ? RCODES[failure] : found === undefined ? RCODES.NXDOMAIN : 0;
    const addresses = (rcode === 0 ? found! : []).filter(
      (one) => isIP(one) === (type === "A" ? 4 : 6),
    );
    const header = Buffer.alloc(HEADER_BYTES);
    question.copy(header, 0, 0, 2);
    header.writeUInt16BE(0x8180 | rcode, 2); // an answer, recursion available
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(addresses.length, 6);
    const records = addresses.map((address) => record(question.readUInt16BE(at + 1), address));
    return Buffer.concat([header, question.subarray(HEADER_BYTES, at + 5), ...records]);
  }
}

function record(type: number, address: string): Buffer {
  const bytes = Buffer.from(ipaddr.parse(address).toByteArray());
  const head = Buffer.alloc(12);
  head.writeUInt16BE(0xc000 | HEADER_BYTES, 0); // the name of the question
  head.writeUInt16BE(type, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt32BE(TTL_S, 6);
  head.writeUInt16BE(bytes.length, 10);
  return Buffer.concat([head, bytes]);
}
