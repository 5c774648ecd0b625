/** Empties the workers' mailboxes on the main thread, as soon as mail arrives. */
import { type Mail, MailboxReader } from "../../shared/mailbox.ts";
import { MAIL, type SharedMemory } from "../../shared/memory.ts";

/** What is done with the messages of one kind. */
export interface MailTaker {
  /** GOSSIP or FRAMES. */
  readonly kind: number;
  /** Messages taken from one mailbox before others have their turn. */
  readonly turnMax: number;
  /** @param mail stays where it is until the turn is done */
  receive(mail: Mail): void;
  /** The room of all messages of the turn is about to be freed. */
  turnDone?(): void;
}

export class MailReader {
  readonly #words: Int32Array;
  readonly #boxes: { readonly taker: MailTaker; readonly mailbox: MailboxReader }[] = [];
  #reading: Promise<void> | undefined;
  #stopped = false;

  constructor(private readonly memory: SharedMemory) {
    this.#words = memory.words;
  }

  /** Hands out the messages of one kind, from the next turn on. */
  add(taker: MailTaker): void {
    for (let worker = 0; worker < this.memory.shape.workers; worker++)
      this.#boxes.push({ taker, mailbox: new MailboxReader(this.memory, taker.kind, worker) });
  }

  start(): void {
    this.#reading ??= this.#read();
  }

  /** Ends it; what is in the mailboxes stays there. */
  async stop(): Promise<void> {
    this.#stopped = true;
    Atomics.notify(this.#words, MAIL);
    await this.#reading;
  }

  async #read(): Promise<void> {
    while (!this.#stopped) {
      const mail = Atomics.load(this.#words, MAIL);
      let taken = 0;
      for (const { taker, mailbox } of this.#boxes) taken += turn(taker, mailbox);
      if (taken > 0) await new Promise(setImmediate);
      else await Atomics.waitAsync(this.#words, MAIL, mail).value;
    }
  }
}

/** @returns how many messages were taken */
function turn(taker: MailTaker, mailbox: MailboxReader): number {
  let taken = 0;
  while (taken < taker.turnMax) {
    const mail = mailbox.take();
    if (mail === undefined) break;
    taker.receive(mail);
    taken++;
  }
  if (taken > 0) {
    taker.turnDone?.();
    mailbox.release();
  }
  return taken;
}
