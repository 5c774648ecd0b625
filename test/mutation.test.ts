/** The changes that `npm run mutate` makes: each is one, and leaves a program. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { allMutants } from "./mutation/mutants.ts";

const ROOT = join(import.meta.dir, "..");
const FILES = ["src/protocol.ts", "src/shared/limits.ts", "src/data/runs.ts", "ffi/endpoint.ts"];

test("every mutant differs from its source and still parses", async () => {
  const mutants = await allMutants(ROOT, FILES);
  const transpiler = new Bun.Transpiler({ loader: "ts" });
  for (const file of FILES) {
    const source = readFileSync(join(ROOT, file), "utf8");
    const own = mutants.filter((mutant) => mutant.file === file);
    expect(own.length).toBeGreaterThan(20);
    for (const { start, end, by } of own) {
      const mutated = source.slice(0, start) + by + source.slice(end);
      expect(mutated).not.toBe(source);
      transpiler.transformSync(mutated); // @throws for what is no program
    }
  }
});

test("a mutant names its file and line, and every sort of change is among them", async () => {
  const file = "src/shared/nodes.ts";
  const source = readFileSync(join(ROOT, file), "utf8");
  const mutants = await allMutants(ROOT, [file]);
  const found = mutants.map(({ line, start, end, by }) => {
    expect(source.slice(0, start).split("\n")).toHaveLength(line);
    return `${source.slice(start, end)} → ${by}`;
  });
  for (const change of ["=== → !==", "+ → -", "0 → 1", "true → false", " →  return;"])
    expect(found).toContain(change);
  expect(found).toContainEqual(expect.stringMatching(/^this\..*; → ;$/s));
  expect(found).toContainEqual(expect.stringMatching(/^(.*) → !\(\1\)$/s));
});
