/** Resolves host names, repeatedly: addresses change, and a failed lookup may succeed later. */
import { isIP } from "node:net";
import type { Logger } from "pino";
import { type Lookup, lookupName, NameError } from "../kit/names.ts";

/** Maximum number of concurrent lookups: each costs a timer, and packets to a silent server. */
export const LOOKUPS_MAX = 16;

export class Resolver {
  readonly #known = new Map<string, readonly string[]>();
  readonly #failing = new Set<string>();
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(
    private readonly log: Logger,
    private readonly lookup: Lookup = lookupName,
  ) {}

  /** Returns a host's known addresses in the order to try them; an IP literal is its own. */
  known(host: string): readonly string[] {
    return isIP(host) !== 0 ? [host] : (this.#known.get(host) ?? []);
  }

  get hosts(): readonly (readonly [host: string, addresses: readonly string[]])[] {
    return [...this.#known];
  }

  /** Applies another process's result until the next lookup. Ignores text that is no IP address. */
  adopt(host: string, addresses: readonly string[]): void {
    this.#known.set(
      host,
      addresses.filter((address) => isIP(address) !== 0),
    );
  }

  /**
   * Looks a name up. If the lookup fails, keeps the known addresses and logs a warning, once until
   * a lookup succeeds.
   * @param signal ends the lookup without a change
   * @returns whether the known addresses changed
   */
  async resolve(host: string, signal?: AbortSignal): Promise<boolean> {
    if (isIP(host) !== 0 || signal?.aborted) return false;
    if (this.#running < LOOKUPS_MAX) this.#running++;
    else await new Promise<void>((resume) => this.#waiting.push(resume));
    try {
      if (signal?.aborted) return false;
      return await this.#lookUp(host, signal);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next(); // with the place of this lookup
    }
  }

  /** Forgets all names but these. */
  retain(hosts: ReadonlySet<string>): void {
    for (const host of this.#known.keys()) if (!hosts.has(host)) this.#known.delete(host);
    for (const host of this.#failing) if (!hosts.has(host)) this.#failing.delete(host);
  }

  async #lookUp(host: string, signal: AbortSignal | undefined): Promise<boolean> {
    try {
      const { addresses, unanswered } = await this.lookup(host, signal);
      if (signal?.aborted) return false;
      if (this.#failing.delete(host))
        this.log.info({ event: "host_resolved", host }, "host name resolved again");
      const before = this.#known.get(host) ?? [];
      // Keeps addresses of a family without an answer: half an answer removes no peer.
      const kept = before.filter((address) => isIP(address) === unanswered);
      const now = [...new Set([...addresses, ...kept])];
      this.#known.set(host, now);
      return now.join() !== before.join();
    } catch (error) {
      if (!(error instanceof NameError)) throw error;
      if (signal?.aborted) return false;
      if (!this.#failing.has(host))
        this.log.warn(
          { event: "host_unresolved", host },
          `${error.message}: check the name and this host's DNS; it is tried again`,
        );
      this.#failing.add(host);
      return false;
    }
  }
}
