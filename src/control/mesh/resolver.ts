/**
 * Host names become addresses, again and again: what cannot be resolved now may be later, and names
 * move.
 */
import { isIP } from "node:net";
import type { Logger } from "pino";
import { type Lookup, lookupName, NameError } from "../kit/names.ts";

/**
 * Names that are looked up at the same time: a silent name server costs timers and packets, few of
 * them.
 */
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

  /**
   * A host's addresses as far as they are known, in the order to try them; an IP literal is its
   * own.
   */
  known(host: string): readonly string[] {
    return isIP(host) !== 0 ? [host] : (this.#known.get(host) ?? []);
  }

  /** Host names and their addresses, as far as they are known. */
  get hosts(): readonly (readonly [host: string, addresses: readonly string[]])[] {
    return [...this.#known];
  }

  /**
   * Takes what another process found out, until a name is looked up anew. What is no IP literal is
   * left out.
   */
  adopt(host: string, addresses: readonly string[]): void {
    this.#known.set(
      host,
      addresses.filter((address) => isIP(address) !== 0),
    );
  }

  /**
   * Looks a name up anew. If that fails, what was known stays; a warning is logged, once until it
   * works again.
   * @param signal ends it; nothing has changed then
   * @returns whether other addresses are known now than before
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
      else next(); // takes over this one's place
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
      if (this.#failing.delete(host)) this.log.info({ host }, "host name resolved again");
      const before = this.#known.get(host) ?? [];
      // Those of a family that nobody answered for are as good as before: half an answer removes no
      // peer.
      const kept = before.filter((address) => isIP(address) === unanswered);
      const now = [...new Set([...addresses, ...kept])];
      this.#known.set(host, now);
      return now.join() !== before.join();
    } catch (error) {
      if (!(error instanceof NameError)) throw error;
      if (signal?.aborted) return false;
      if (!this.#failing.has(host))
        this.log.warn(
          { host },
          `${error.message}: check the name and this host's DNS; it is tried again`,
        );
      this.#failing.add(host);
      return false;
    }
  }
}
