/** A command's environment and output: the process, or a test's replacement. */
import { writeSync } from "node:fs";
import { isatty } from "node:tty";
import { jsonLine, printable } from "./text.ts";

export interface Console {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Whether standard output is a terminal. */
  readonly isTerminal: boolean;
  /** Writes a line, without control characters. */
  line(text: string): void;
  /** Writes a value as a line of JSON. */
  json(value: unknown): void;
  /** Writes a line to standard error, without control characters. */
  problem(text: string): void;
  /** Writes a text of this program's own as it is. */
  raw(text: string): void;
}

/** How commands end. */
export const EXIT_OK = 0;
/** The answer is no: not healthy, not possible, something lost. */
export const EXIT_NO = 1;
export const EXIT_USAGE = 2;
/** No beacon answers that this program understands. */
export const EXIT_UNREACHABLE = 3;
/** The admin token is missing or wrong. */
export const EXIT_FORBIDDEN = 4;

/** Retry interval in ms while a slow reader leaves its pipe full. */
const FULL_WAIT_MS = 5;

export const processConsole: Console = {
  env: process.env,
  // process.stdout would make a pipe non-blocking, for all processes that share it (Bun 1.4.5)
  isTerminal: isatty(1),
  line: (text) => write(1, `${printable(text)}\n`),
  json: (value) => write(1, `${jsonLine(value)}\n`),
  problem: (text) => write(2, `beacon: ${printable(text)}\n`),
  raw: (text) => write(1, text),
};

/** Writes at once and whole. A reader that has gone (`| head`) ends the process. */
function write(fd: number, text: string): void {
  let bytes: Uint8Array = new TextEncoder().encode(text);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(writeSync(fd, bytes));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "EAGAIN") process.exit(EXIT_NO);
      Bun.sleepSync(FULL_WAIT_MS);
    }
  }
}
