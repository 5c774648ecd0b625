/** Upgrades: another process takes this one's place while packets flow. */
import { HASH_SECRET } from "../../shared/memory.ts";
import type { AnyFeature, Host } from "../feature.ts";
import { HandOver, type Upgraded, UpgradeError } from "../hand-over/hand-over.ts";
import type { Successor } from "../hand-over/successor.ts";
import { nodes } from "../nodes/feature.ts";
import { sockets } from "../sockets/feature.ts";
import type { SocketsConfig } from "../sockets/options.ts";
import { workers } from "../workers/feature.ts";

/** Time after a hand-over: for open answers, and in case the successor dies at once. */
const RETIRE_MS = 1000;

export class Upgrades {
  #handOver: HandOver | undefined;
  #outcome: Promise<Upgraded> | undefined;

  constructor(private readonly host: Host<SocketsConfig>) {}

  /** Whether an upgrade is under way, or done. */
  get isUnderWay(): boolean {
    return this.#handOver !== undefined;
  }

  /** Whether the successor was sent everything, so that it misses what changes here. */
  get hasHandedOver(): boolean {
    return this.#handOver?.hasTold ?? false;
  }

  /** Whether the successor serves. */
  get hasServed(): boolean {
    return this.#handOver?.hasServed ?? false;
  }

  /**
   * Starts a process and hands over to it. This beacon then closes within some seconds.
   * @throws UpgradeError if that process does not come to serve; this one goes on as before
   */
  async begin(successor: Successor): Promise<Upgraded> {
    if (this.#handOver) throw new UpgradeError("an upgrade is under way already");
    if (successor.obstacle !== undefined) throw new UpgradeError(successor.obstacle);
    const { host } = this;
    const { all, offload } = host.use(sockets);
    const handOver = new HandOver(successor, {
      services: host.services,
      workers: host.use(workers).supervisor,
      sockets: all,
      log: host.log,
      offer: () => ({
        ...{ version: host.version, addr: host.config.addr },
        ...{ steering: host.config.steering, offload },
        hashSecret: host.memory.words[HASH_SECRET]!,
        maySave: host.use(nodes).state?.maySave ?? true,
        locals: host.use(sockets).locals,
      }),
    });
    this.#handOver = handOver;
    this.#outcome = this.#run(handOver, successor);
    return this.#outcome;
  }

  /** Cancels an upgrade that has not come about; hastens this process's end after one that has. */
  async end(): Promise<void> {
    this.#handOver?.cancel();
    await this.#outcome?.catch(() => {});
  }

  async #run(handOver: HandOver, successor: Successor): Promise<Upgraded> {
    try {
      const upgraded = await handOver.run();
      const { pid, version } = upgraded;
      this.host.log.info(
        { successor: pid, version },
        `process ${pid}, version ${version}, serves; this one ends`,
      );
      void this.#retire(handOver, successor);
      return upgraded;
    } catch (error) {
      this.#handOver = undefined;
      throw error;
    }
  }

  /** Closes the beacon, unless the successor dies meanwhile: then this process serves again. */
  async #retire(handOver: HandOver, successor: Successor): Promise<void> {
    const { signal } = handOver;
    const over = Promise.withResolvers<void>();
    const timer = setTimeout(over.resolve, RETIRE_MS);
    signal.addEventListener("abort", () => over.resolve());
    const retired = this.host.services.map((service) => service.retire?.(signal));
    const stayed = Promise.all([over.promise, ...retired]).then(() => "0");
    const endedWith = await Promise.race([stayed, handOver.ended()]);
    clearTimeout(timer);
    if (endedWith === "0" || signal.aborted) {
      await this.host.beacon.close();
      return;
    }
    await handOver.resume();
    this.#handOver = undefined;
    this.host.log.error(`the new process ended at once (${endedWith}): this one serves again`);
    successor.onServingAgain?.();
  }
}

export const upgrades = {
  name: "upgrades",
  create: (host: Host<SocketsConfig>) => new Upgrades(host),
} satisfies AnyFeature;
