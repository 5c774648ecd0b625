/**
 * The new process's side of an upgrade; hand-over.ts is the other side, and says who serves when.
 *
 *   const takeOver = TakeOver.fromEnvironment(process.env);
 *   await beacon.listen(takeOver);
 */
import { closeSync } from "node:fs";
import type { Logger } from "pino";
import { UnixChannel } from "../../../ffi/unix-channel.ts";
import type { HandOverSections, Predecessor, Section } from "../feature.ts";
import { Channel, type Message, SECTION_KINDS } from "./channel.ts";
import {
  FORMAT,
  formatSchema,
  type Offer,
  offerSchema,
  PREPARED,
  readJson,
  readSection,
} from "./format.ts";
import { CHANNEL_VARIABLE } from "./successor.ts";

/** The longest text of what went wrong. */
const REASON_LENGTH_MAX = 1000;

/** Why this process cannot take over; the message says what to do. */
export class TakeOverError extends Error {
  override readonly name = "TakeOverError";
}

/** What was offered, and fits. */
type Inherited = Predecessor & Pick<Offer, "hashSecret">;

export class TakeOver {
  /** Once this process serves: whoever ends it before only ends an attempt. */
  isServing = false;
  /** The sections that are read, by name. */
  readonly #sections = new Map<string, Section>();
  #log: Logger | undefined;
  /** Whether the old process has sent all that it knew once. */
  #isWhole = false;
  /** Whether it is still there, as far as this one has heard. */
  #isLeft = true;
  /** Settled when the old process has said that this one is the service, or is dead. */
  readonly committed: Promise<void>;
  readonly #committed = Promise.withResolvers<void>();

  private constructor(private readonly channel: Channel) {
    this.committed = this.#committed.promise;
  }

  /** Returns this process's take-over, if it was started for one; removes the variable. */
  static fromEnvironment(env: Record<string, string | undefined>): TakeOver | undefined {
    const fd = env[CHANNEL_VARIABLE] ?? "";
    delete env[CHANNEL_VARIABLE];
    return /^\d{1,6}$/.test(fd)
      ? new TakeOver(new Channel(new UnixChannel(Number(fd))))
      : undefined;
  }

  /**
   * Waits for the offer.
   * @param wanted as this process is configured
   * @param version of this process
   * @returns undefined if the old process is dead and has handed over nothing: then this is a start
   * like any other
   * @throws TakeOverError if what is offered is not what is wanted; FormatError
   */
  async inherit(
    wanted: Pick<Offer, "addr"> & { readonly workers: number },
    version: string,
  ): Promise<Inherited | undefined> {
    const message = await this.channel.receive();
    if (message === undefined) {
      this.#goesOnAlone();
      return undefined;
    }
    const { kind, body, fds } = message;
    if (kind !== "offer")
      throw new TakeOverError(`the old process said ${kind} in place of an offer`);
    const { format } = readJson(formatSchema, body);
    if (format !== FORMAT)
      throw new TakeOverError(
        `the old process speaks format ${format}, this one ${FORMAT}: restart in place of it`,
      );
    const offer = readJson(offerSchema, body);
    if (offer.addr !== wanted.addr)
      throw new TakeOverError(
        `--addr is ${wanted.addr} now, and was ${offer.addr}: that takes a restart`,
      );
    if (fds.length !== wanted.workers)
      throw new TakeOverError(
        `--workers is ${wanted.workers} now, and was ${fds.length}: that takes a restart`,
      );
    const { locals = [], ...rest } = offer;
    return { ...rest, locals, fds, waitForTurn: () => this.#waitForTurn(version) };
  }

  /**
   * Reads what the old process knows, until it has sent all of it once.
   * @param readers of this process's sections
   * @returns false if it died before
   */
  async learn(readers: readonly HandOverSections[], log: Logger): Promise<boolean> {
    this.#log = log;
    for (const { sections } of readers)
      for (const [name, section] of Object.entries(sections)) this.#sections.set(name, section);
    await this.#follow("prepare");
    return this.#isWhole;
  }

  /** Reports that this process is ready, then reads changes until its turn. */
  async #waitForTurn(version: string): Promise<void> {
    if (!this.#isLeft) return;
    await this.channel.sendJson("prepared", { version, ...PREPARED });
    await this.#follow("go");
  }

  /** Says that this process serves. */
  async served(): Promise<void> {
    this.isServing = true;
    if (!this.#isLeft) return;
    await this.channel.send("serving");
    void this.channel
      .receive() // nothing but `commit` comes, or the end
      .catch(() => {})
      .then(() => this.#goesOnAlone());
  }

  /** Says why this process does not serve, and is about to end. */
  async refuse(reason: string): Promise<void> {
    if (this.#isLeft && !this.isServing) {
      await this.channel
        .sendJson("refused", { reason: reason.slice(0, REASON_LENGTH_MAX) })
        .catch(() => {});
    }
  }

  /** Reads messages up to the last of some, or to the death of the old process. */
  async #follow(last: "prepare" | "go"): Promise<void> {
    for (;;) {
      const message = await this.channel.receive();
      if (message === undefined) {
        this.#goesOnAlone();
        return;
      }
      if (message.kind === "sync") await this.channel.send("synced");
      else if (message.kind !== last) await this.#read(message);
      else {
        this.#isWhole = true;
        return;
      }
    }
  }

  /** Passes a message to its section; skips unknown ones, whose feature starts cold. */
  async #read({ kind, body, fds }: Message): Promise<void> {
    const isOwnKind = (SECTION_KINDS as readonly string[]).includes(kind);
    if (!isOwnKind && kind !== "section")
      throw new TakeOverError(`the old process said ${kind}, which is not its turn`);
    const told = isOwnKind ? { name: kind, version: 1, body } : readSection(body);
    const section = this.#sections.get(told.name);
    const isKnown = section?.version === told.version;
    if (!isKnown || !section.readsFiles) for (const fd of fds) closeSync(fd);
    if (isKnown) await section.read(told.body, fds);
    else
      this.#log?.debug(
        { section: told.name, version: told.version },
        "upgrade: skipped a section of another version",
      );
  }

  #goesOnAlone(): void {
    this.#isLeft = false;
    this.channel.close();
    this.#committed.resolve();
  }
}
