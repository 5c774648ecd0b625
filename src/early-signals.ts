/**
 * Signals that arrive before the server can act on them. Without a handler SIGHUP and SIGUSR2 end a
 * process, and process 1 of a container never sees its SIGTERM. Loading the server takes some 200
 * ms, so the handlers are registered before that.
 */
const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"] as const;
export type ServerSignal = (typeof SIGNALS)[number];

export type SignalHandlers = Readonly<Record<ServerSignal, () => void>>;

export class EarlySignals {
  /** In the order of their arrival; a signal that arrives again counts once. */
  readonly #pending = new Set<ServerSignal>();
  #handlers: SignalHandlers | undefined;

  private constructor() {
    for (const signal of SIGNALS) {
      process.on(signal, () => {
        if (this.#handlers === undefined) this.#pending.add(signal);
        else this.#handlers[signal]();
      });
    }
  }

  /** Registers a handler for every signal of the server; each signal waits for `deliverTo`. */
  static hold(): EarlySignals {
    return new EarlySignals();
  }

  /** Calls the handlers for past and future signals. */
  deliverTo(handlers: SignalHandlers): void {
    this.#handlers = handlers;
    for (const signal of this.#pending) handlers[signal]();
    this.#pending.clear();
  }
}
