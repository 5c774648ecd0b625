/** Host names become addresses, again and again: what cannot be resolved now may be later, and names move. */
import type { LookupAddress } from "node:dns";
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import type { Logger } from "pino";

/** How long a name server may take before its answer counts as none; the system's own limit is several times that. */
const LOOKUP_MS_MAX = 5000;

export type Lookup = (host: string) => Promise<readonly LookupAddress[]>;

const systemLookup: Lookup = (host) => lookup(host, { all: true });

export class Resolver {
  readonly #known = new Map<string, readonly string[]>();
  readonly #failing = new Set<string>();
  readonly #asked = new Map<string, Promise<readonly LookupAddress[]>>();

  constructor(
    private readonly log: Logger,
    private readonly lookup: Lookup = systemLookup,
  ) {}

  /** A host's addresses as far as they are known, in the order to try them; an IP literal is its own. */
  known(host: string): readonly string[] {
    return isIP(host) !== 0 ? [host] : (this.#known.get(host) ?? []);
  }

  /** Host names and their addresses, as far as they are known. */
  get hosts(): readonly (readonly [host: string, addresses: readonly string[]])[] {
    return [...this.#known];
  }

  /** Takes what another process found out, until a name is looked up anew. What is no IP literal is left out. */
  adopt(host: string, addresses: readonly string[]): void {
    this.#known.set(
      host,
      addresses.filter((address) => isIP(address) !== 0),
    );
  }

  /**
   * Looks a name up anew. If that fails, what was known stays; a warning is logged, once until it works again.
   * @param signal ends the wait; nothing has changed then
   * @returns whether other addresses are known now than before
   */
  async resolve(host: string, signal?: AbortSignal): Promise<boolean> {
    if (isIP(host) !== 0 || signal?.aborted) return false;
    try {
      const found = await this.#lookUp(host, signal);
      if (this.#failing.delete(host)) this.log.info({ host }, "host name resolved again");
      const before = this.#known.get(host) ?? [];
      const addresses = [...new Set(found.map(({ address }) => address))];
      this.#known.set(host, addresses);
      return addresses.join() !== before.join();
    } catch (error) {
      if (signal?.aborted) return false;
      if (!this.#failing.has(host)) {
        const { code = (error as Error).message } = error as NodeJS.ErrnoException;
        this.log.warn({ host }, `no address for ${host} (${code}): check the name; it is tried again`);
      }
      this.#failing.add(host);
      return false;
    }
  }

  /** Forgets all names but these. */
  retain(hosts: ReadonlySet<string>): void {
    for (const host of this.#known.keys()) if (!hosts.has(host)) this.#known.delete(host);
    for (const host of this.#failing) if (!hosts.has(host)) this.#failing.delete(host);
  }

  /** One question a name at a time: an unanswered one keeps a thread of the runtime busy. */
  async #lookUp(host: string, signal: AbortSignal | undefined): Promise<readonly LookupAddress[]> {
    let asked = this.#asked.get(host);
    if (asked === undefined) {
      asked = this.lookup(host).finally(() => this.#asked.delete(host));
      asked.catch(() => {}); // if it fails after we stopped waiting
      this.#asked.set(host, asked);
    }
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(new Error("the name server does not answer")), LOOKUP_MS_MAX);
    const abort = () => reject(signal?.reason);
    signal?.addEventListener("abort", abort);
    try {
      return await Promise.race([asked, late]);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }
}
