/** A console whose lines a test reads. */
import type { Console } from "../../../src/cli/console.ts";
import { printable } from "../../../src/cli/text.ts";

export class TestConsole implements Console {
  readonly lines: string[] = [];
  readonly values: unknown[] = [];
  readonly problems: string[] = [];
  text = "";

  constructor(
    readonly env: Readonly<Record<string, string | undefined>> = {},
    readonly isTerminal = false,
  ) {}

  line(text: string): void {
    this.lines.push(printable(text));
  }

  json(value: unknown): void {
    this.values.push(JSON.parse(JSON.stringify(value)));
  }

  problem(text: string): void {
    this.problems.push(printable(text));
  }

  raw(text: string): void {
    this.text += text;
  }
}
