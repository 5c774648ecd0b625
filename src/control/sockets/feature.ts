/** The public port: sockets, how the kernel spreads packets over them, source addresses. */
import { attachReusePortProgram } from "../../../ffi/bpf.ts";
import {
  LOCAL_NUMBERS_END,
  localNumber,
  type SocketAddress,
  setLocalNumber,
} from "../../../ffi/endpoint.ts";
import { errnoName, SyscallError } from "../../../ffi/errno.ts";
import type { UdpSocket } from "../../../ffi/socket.ts";
import { parseHostPort } from "../../config/units.ts";
import { LocalAddresses } from "../../shared/local-addresses.ts";
import { HASH_SECRET, OFFLOAD_ERRNO } from "../../shared/memory.ts";
import type { AnyFeature, Host, Predecessor, Service } from "../feature.ts";
import { whileTaken } from "../kit/while-taken.ts";
import { type SocketsConfig, socketsOptions } from "./options.ts";
import { adoptSockets, type BeaconSockets, openSockets } from "./sockets.ts";
import { SourceAddresses } from "./source-addresses.ts";
import { steeringProgram } from "./steering.ts";

type SocketsHost = Host<SocketsConfig & { readonly workers: number }>;

export class Sockets implements Service {
  /** One for each worker. */
  readonly all: readonly UdpSocket[];
  readonly address: SocketAddress;
  /** Whether the kernel merges and splits datagrams. */
  readonly offload: boolean;
  readonly sources: SourceAddresses;
  #offloadErrno = 0;
  /** By the old process's number. */
  #localNumbers: Uint8Array | undefined;

  constructor(
    private readonly host: SocketsHost,
    private readonly opened: BeaconSockets,
  ) {
    const { config, memory, log, predecessor } = host;
    this.all = opened.sockets;
    this.offload = opened.offload;
    this.#warnOfBuffers();
    if (config.offload && !opened.offload && !predecessor)
      log.warn("offload is off: this kernel lacks UDP_GRO or UDP_SEGMENT");
    if (config.steering && !predecessor) this.#steer();
    this.sources = new SourceAddresses(memory, this.all, config.sourceAddress, log);
    this.address = this.all[0]!.localAddress();
  }

  /** Replaces the old process's number of a local address in an endpoint by this one's. */
  translateLocal(endpoint: Int32Array): void {
    this.#localNumbers ??= this.#numbersOf(this.host.predecessor?.locals ?? []);
    setLocalNumber(endpoint, 0, this.#localNumbers[localNumber(endpoint, 0)]!);
  }

  /** Local addresses by number, for a successor; the kernel chooses for later ones. */
  get locals(): [number, number[]][] {
    const locals = new LocalAddresses(this.host.memory);
    return Array.from({ length: LOCAL_NUMBERS_END }, (_, number) => number).flatMap((number) => {
      const address = locals.address(number);
      return address ? [[number, Array.from(address)] as [number, number[]]] : [];
    });
  }

  #numbersOf(locals: Predecessor["locals"]): Uint8Array {
    const numbers = new Uint8Array(LOCAL_NUMBERS_END);
    for (const [number, address] of locals)
      numbers[number] = this.sources.adopt(Int32Array.from(address));
    return numbers;
  }

  /** Whether packets to an endpoint can leave from these sockets. */
  reaches(endpoint: Int32Array): boolean {
    return this.opened.reaches(endpoint);
  }

  tick(): void {
    this.sources.tick();
    const errno = Atomics.load(this.host.memory.words, OFFLOAD_ERRNO);
    if (errno === this.#offloadErrno) return;
    this.#offloadErrno = errno;
    this.host.log.warn(
      `offload of sends is off: this host's network device refuses it (${errnoName(errno)})`,
    );
  }

  stop(): void {
    for (const socket of this.all) socket.close();
  }

  #steer(): void {
    if (this.all.length === 1) return;
    const { memory, log } = this.host;
    try {
      attachReusePortProgram(
        this.all[0]!,
        steeringProgram(memory.words[HASH_SECRET]!, memory.shards),
      );
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      log.warn(`steering is off, packets are spread by flow instead: ${error.message}`);
    }
  }

  #warnOfBuffers(): void {
    const { config, log } = this.host;
    const check = (name: string, asked: number, got: number, sysctl: string) => {
      if (got >= asked) return;
      log.warn(`${name} is ${got} bytes, not the ${asked} asked for: raise ${sysctl} with sysctl`);
    };
    check(
      "receive buffer",
      config.recvBufferBytes,
      this.opened.recvBufferBytes,
      "net.core.rmem_max",
    );
    check("send buffer", config.sendBufferBytes, this.opened.sendBufferBytes, "net.core.wmem_max");
  }
}

async function open({
  config,
  predecessor,
  portPatienceMs,
  log,
}: SocketsHost): Promise<BeaconSockets> {
  const { addr, workers: count, recvBufferBytes, sendBufferBytes, offload, steering } = config;
  const options = { count, recvBufferBytes, sendBufferBytes, offload };
  if (!predecessor)
    return whileTaken(portPatienceMs, () => openSockets(parseHostPort(addr), options));
  const unchanged = [
    ...(steering === predecessor.steering ? [] : ["--steering"]),
    ...(offload || !predecessor.offload ? [] : ["--offload"]),
  ];
  if (unchanged.length > 0) log.warn(`changed only by a restart: ${unchanged.join(", ")}`);
  return adoptSockets(predecessor.fds, { ...options, offload: predecessor.offload });
}

export const sockets = {
  name: "sockets",
  options: socketsOptions,
  create: async (host: SocketsHost) => new Sockets(host, await open(host)),
} satisfies AnyFeature;
