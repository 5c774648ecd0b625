/** What a run finds: printed as it comes, kept for --json, and whether it is what was expected. */
import { showMachine, thisMachine } from "../harness/results.ts";

export class Report {
  /** Expectations that did not hold. */
  readonly failures: string[] = [];
  readonly #raw: Record<string, unknown> = {};

  /** @param name of the run */
  constructor(private readonly name: string) {
    console.log(showMachine(thisMachine()));
  }

  say(text: string): void {
    console.log(text);
  }

  /** Keeps a raw result under a name. */
  keep(name: string, value: unknown): void {
    this.#raw[name] = value;
  }

  /** Prints rows in columns, the first row as their heads. */
  table(title: string, rows: readonly (readonly string[])[]): void {
    const widths = (rows[0] ?? []).map((_, i) =>
      Math.max(...rows.map((row) => (row[i] ?? "").length)),
    );
    console.log(`\n${title}`);
    for (const row of rows)
      console.log(
        `  ${row
          .map((cell, i) => cell.padEnd(widths[i]!))
          .join("  ")
          .trimEnd()}`,
      );
  }

  /** Notes an expectation; one that does not hold is printed, and makes the run fail. */
  expect(what: string, holds: boolean): void {
    if (holds) return;
    this.failures.push(what);
    console.log(`NOT AS EXPECTED: ${what}`);
  }

  /** Says how the run ended. */
  finish(): void {
    const count = this.failures.length;
    console.log(count === 0 ? "\nas expected" : `\n${count} NOT as expected`);
  }

  json(): string {
    return `${JSON.stringify({ run: this.name, at: new Date().toISOString(), machine: thisMachine(), ...this.#raw, failures: this.failures }, null, 1)}\n`;
  }
}

/** Milliseconds with one digit behind the point. */
export const showMs = (ms: number): string => `${ms.toFixed(1)} ms`;
