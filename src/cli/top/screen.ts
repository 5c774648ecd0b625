/** Borrows the terminal: alternate screen, no cursor, raw keys; always given back. */
import type { Size } from "./view.ts";

// alternate screen; no cursor; no wrapping at the edge
const ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME = "\x1b[H";
const CLEAR_REST_OF_LINE = "\x1b[K";
const CLEAR_REST = "\x1b[J";

/** For terminals that do not say, such as serial ones. */
const SIZE_DEFAULT: Size = { columns: 80, rows: 24 };

/** As a shell has it for who is ended by a signal. */
const SIGNAL_EXITS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

export class Screen {
  #isOpen = false;
  readonly #restore = () => this.close();

  /** @param write to the terminal, whole */
  constructor(private readonly write: (text: string) => void) {}

  /**
   * @param onKeys gets what was typed
   * @param onChange is called when what was drawn is gone, or has another size
   */
  open(onKeys: (keys: string) => void, onChange: () => void): void {
    const { stdin, stdout } = process;
    process.on("exit", this.#restore);
    for (const [signal, code] of Object.entries(SIGNAL_EXITS))
      process.on(signal, () => process.exit(code));
    this.#enter();
    stdout.on("resize", onChange);
    // Stopped and gone on, the shell has had the terminal meanwhile.
    process.on("SIGCONT", () => {
      this.#enter();
      onChange();
    });
    if (!stdin.isTTY) return; // there is something to see, and no keys
    stdin.setEncoding("utf8");
    stdin.on("data", (keys) => onKeys(String(keys)));
    stdin.on("end", () => process.exit(SIGNAL_EXITS.SIGHUP));
  }

  get size(): Size {
    const { columns, rows } = process.stdout;
    return { columns: columns || SIZE_DEFAULT.columns, rows: rows || SIZE_DEFAULT.rows };
  }

  draw(lines: readonly string[]): void {
    if (!this.#isOpen) return;
    this.write(
      `${HOME}${lines.map((line) => line + CLEAR_REST_OF_LINE).join("\r\n")}${CLEAR_REST}`,
    );
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    process.off("exit", this.#restore);
    if (process.stdin.isTTY) process.stdin.setRawMode(false);
    this.write(LEAVE);
  }

  #enter(): void {
    this.#isOpen = true;
    if (process.stdin.isTTY) process.stdin.setRawMode(true);
    this.write(ENTER);
  }
}
