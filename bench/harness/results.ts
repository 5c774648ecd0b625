/**
 * What a bench says: figures, printed as they are known and kept, raw, in a JSON file.
 *
 * A *figure* is one quantity, measured once a *round*; all its rounds are kept. A *case* is what it
 * was measured on, such as "200 B, offload off"; case and name together tell a figure from all
 * others of its run. A *run* is one call of a bench.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { dirname } from "node:path";
import * as v from "valibot";
import { showBar, showSpread, spreadOf } from "./statistics.ts";

const FORMAT = 1;

const Params = v.record(v.string(), v.union([v.string(), v.number(), v.boolean()]));

const FigureSchema = v.object({
  case: v.string(),
  /** What was measured, and of whom: "CPU a packet, beacon". */
  name: v.string(),
  /**
   * "ns", "×", "packets/s"; × is a ratio, which holds on a noisy machine where other units do not.
   */
  unit: v.string(),
  better: v.picklist(["less", "more", "neither"]),
  /** One a round, in the order of the rounds. */
  values: v.pipe(v.array(v.number()), v.minLength(1)),
  bar: v.optional(v.object({ atMost: v.optional(v.number()), atLeast: v.optional(v.number()) })),
  /** What this case varies, for charts: { payloadBytes: 200, offload: false }. */
  params: v.optional(Params),
});

const MachineSchema = v.object({
  cpus: v.number(),
  cpu: v.string(),
  memoryGib: v.number(),
  kernel: v.string(),
  bun: v.string(),
  commit: v.string(),
});

const RunSchema = v.object({
  format: v.literal(FORMAT),
  bench: v.string(),
  command: v.string(),
  /** ISO 8601, UTC. */
  startedAt: v.string(),
  elapsedS: v.number(),
  /** A smoke run shows that the bench works; its figures mean nothing. */
  smoke: v.boolean(),
  machine: MachineSchema,
  notes: v.array(v.string()),
  figures: v.array(FigureSchema),
});

export type Figure = v.InferOutput<typeof FigureSchema>;
export type Machine = v.InferOutput<typeof MachineSchema>;
export type Run = v.InferOutput<typeof RunSchema>;

export function thisMachine(): Machine {
  return {
    cpus: cpus().length,
    cpu: cpus()[0]?.model.trim() ?? "unknown processor",
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    bun: Bun.version,
    commit: commitOfThis(),
  };
}

function commitOfThis(): string {
  if (Bun.which("git") === null) return "unknown";
  const describe = ["git", "describe", "--always", "--dirty"];
  const { stdout } = Bun.spawnSync(describe, { cwd: import.meta.dir, stderr: "ignore" });
  return stdout.toString().trim() || "unknown";
}

export function showMachine({ cpus, cpu, memoryGib, kernel, bun, commit }: Machine): string {
  return `${cpus} × ${cpu}, ${memoryGib} GiB, Linux ${kernel}, Bun ${bun}, commit ${commit}`;
}

/** A run that is going on: prints what it is told, and keeps it. */
export class Recorder {
  readonly #startedAt = new Date();
  readonly #machine = thisMachine();
  readonly #notes: string[] = [];
  readonly #figures: Figure[] = [];
  readonly #keys = new Set<string>();

  constructor(
    private readonly bench: string,
    private readonly command: string,
    private readonly smoke: boolean,
  ) {
    console.log(showMachine(this.#machine));
    console.log(command);
  }

  /** Begins a case on the terminal. */
  title(text: string): void {
    console.log(`\n${text}`);
  }

  /** Progress, on the terminal alone. */
  progress(text: string): void {
    console.log(`  ${text}`);
  }

  /** Something that a reader of the figures must know. */
  note(text: string): void {
    console.log(`  note: ${text}`);
    if (!this.#notes.includes(text)) this.#notes.push(text);
  }

  /** @throws Error if this case has a figure of this name already, or no round was measured */
  figure(figure: Figure): void {
    const key = `${figure.case}\n${figure.name}`;
    if (this.#keys.has(key)) throw new Error(`measured twice: ${figure.case}, ${figure.name}`);
    this.#keys.add(key);
    this.#figures.push(v.parse(FigureSchema, figure));
    const spread = showSpread(spreadOf(figure.values), figure.unit);
    console.log(
      `  ${figure.name}: ${spread}${figure.bar ? `; ${showBar(figure.values, figure.bar)}` : ""}`,
    );
  }

  /** Returns a function that records figures of one case; less is better unless given. */
  of(title: string, params: NonNullable<Figure["params"]>) {
    return (
      name: string,
      unit: string,
      values: readonly number[],
      more: Partial<Pick<Figure, "bar" | "better">> = {},
    ) =>
      this.figure({
        ...{ case: title, name, unit, better: "less" },
        values: [...values],
        params,
        ...more,
      });
  }

  /** The run as it stands. */
  run(): Run {
    return {
      format: FORMAT,
      bench: this.bench,
      command: this.command,
      startedAt: this.#startedAt.toISOString(),
      elapsedS: Math.round((Date.now() - this.#startedAt.getTime()) / 1000),
      smoke: this.smoke,
      machine: this.#machine,
      notes: this.#notes,
      figures: this.#figures,
    };
  }
}

/** Writes a run as JSON, with a line a figure, so that two files can be compared by eye too. */
export function saveRun(path: string, run: Run): void {
  const { figures, ...head } = run;
  const lines = figures.map((figure) => `    ${JSON.stringify(figure)}`).join(",\n");
  const before = JSON.stringify(head, null, 2).slice(0, -"\n}".length);
  const text = `${before},\n  "figures": [\n${lines}\n  ]\n}\n`;
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

/** @throws Error that names the file, when it is missing, no JSON or no run */
export function loadRun(path: string): Run {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new Error(`${path}: ${error instanceof Error ? error.message : error}`);
  }
  const parsed = v.safeParse(RunSchema, json);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  throw new Error(
    `${path} is no run of a bench: ${v.getDotPath(issue) ?? "the file"}: ${issue.message}`,
  );
}
