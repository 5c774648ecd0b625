/**
 * Import rules of the sources. Bun's own parser finds the imports: dependency-cruiser 18 cannot
 * read TypeScript 7 and needs 43 packages. A type-only import counts like any other, unless a rule
 * exempts it: to read a module, one opens the modules whose types it uses.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { Glob } from "bun";

const ROOT = join(import.meta.dir, "..");

interface Import {
  readonly from: string;
  /** Relative to the root for a file of this tree, else the package's name. */
  readonly to: string;
  readonly typesOnly: boolean;
}

interface Rule {
  readonly title: string;
  /** The importing files. */
  readonly from: RegExp;
  /** Every import of these files must match. */
  readonly only?: RegExp;
  /** No import of these files may match. */
  readonly not?: RegExp;
  /** Exempts type-only imports that match. */
  readonly types?: RegExp;
}

/** The configuration as a whole, which knows all features. */
const CONFIG = /^src\/(config|settings)\.ts$/;

const RULES: readonly Rule[] = [
  { title: "ffi imports only ffi from the tree", from: /^ffi\//, not: /^(src\/|\.\.)/ },
  { title: "only ffi imports bun:ffi", from: /^src\//, not: /^bun:ffi$/ },
  {
    title: "the data plane imports only ffi, the shared memory and the protocol",
    from: /^src\/data\//,
    only: /^(ffi\/|src\/(data|shared)\/|src\/protocol\.ts$|node:worker_threads$)/,
  },
  {
    title: "the shared memory imports only ffi and the protocol",
    from: /^src\/shared\//,
    only: /^(ffi\/|src\/shared\/|src\/protocol\.ts$)/,
  },
  { title: "the protocol imports only ffi", from: /^src\/protocol\.ts$/, only: /^ffi\// },
  {
    title:
      "the control plane imports only the worker, the frames and the introductions of the data plane",
    from: /^src\/control\//,
    not: /^src\/data\/(?!(worker|frames|introductions)\.ts$)/,
  },
  {
    title: "the control plane does not import the beacon, the server or the entry",
    from: /^src\/control\//,
    not: /^src\/(beacon|serve|main)\.ts$/,
  },
  {
    title: "what options are made of imports only itself from the tree",
    from: /^src\/config\//,
    not: /^(src\/(?!config\/)|ffi\/|\.\.)/,
  },
  {
    title: "only the server, the beacon and the commands import the whole configuration",
    from: /^(?!src\/(serve|beacon|config|settings)\.ts$|src\/cli\/)/,
    not: CONFIG,
  },
  {
    title: "only the configuration and the commands import commander",
    from: /^(?!src\/config\.ts$|src\/cli\/)/,
    not: /^commander$/,
  },
  {
    title: "the commands import only types of the control plane, and nothing of the data plane",
    from: /^src\/cli\/(?!check-config\.ts$)/,
    not: /^(src\/(?!(cli|view|config)\/|(protocol|config|settings)\.ts$)|ffi\/(?!host-port\.ts$)|\.\.)/,
    types: /^src\/(control\/|features\.ts$)/,
  },
  {
    title: "check-config reads files as the server's start does",
    from: /^src\/cli\/check-config\.ts$/,
    not: /^(src\/(?!(cli|view|config)\/|(protocol|config|settings|control\/services|features)\.ts$)|ffi\/(?!host-port\.ts$)|\.\.)/,
    types: /^src\/(control\/|features\.ts$)/,
  },
  {
    title: "the view imports only itself and types of the control plane from the tree",
    from: /^src\/view\//,
    not: /^(src\/(?!view\/)|ffi\/(?!host-port\.ts$)|\.\.)/,
    types: /^src\/(control\/|features\.ts$)/,
  },
  {
    title: "only the entry imports the commands",
    from: /^(?!src\/cli\/|src\/main\.ts$)/,
    not: /^src\/cli\//,
  },
  {
    title: "what the entry loads at once imports nothing",
    from: /^src\/(config\/commands|early-signals)\.ts$/,
    not: /./,
  },
  {
    title: "the page and the view import nothing that a browser lacks",
    from: /^src\/(page|view)\//,
    only: /^(src\/(page|view)\/|ffi\/host-port\.ts$|uplot$)/,
    types: /./,
  },
  { title: "only the page imports the page", from: /^(?!src\/page\/)/, not: /^src\/page\// },
  {
    title: "the supervising process loads ffi and no module of the server",
    from: /^src\/(supervise\/|program-command\.ts$)/,
    only: /^(ffi\/|src\/supervise\/|src\/(program-command|early-signals)\.ts$|node:)/,
    types: /./,
  },
  { title: "no module imports the entry", from: /./, not: /^src\/main\.ts$/ },
];

/** Room arrows in cycles that are still to be cut; delete a line when its arrow is gone. */
const CYCLES: readonly string[] = [];

const parser = new Bun.Transpiler({ loader: "ts" });

/** Without what Bun's parser refuses, the line with the interpreter, and what it runs, macros. */
const parsable = (source: string): string =>
  source.replace(/^#!.*/, "").replaceAll(' with { type: "macro" }', "");

/** Turns imports of types, which Bun's parser leaves out, into imports of values. */
const typesAsValues = (source: string): string =>
  source
    .replace(/\b(import|export) type(?= ([{*]|\w+ from\b))/g, "$1")
    .replace(/([{,]\s*)type (?=\w+( as \w+)?\s*[,}])/g, "$1");

/** Each imported module once. Not found are imports within a type: `import("…").Name`. */
function importsIn(source: string): { path: string; typesOnly: boolean }[] {
  const paths = (text: string) => new Set(parser.scanImports(text).map(({ path }) => path));
  const values = paths(parsable(source));
  const all = paths(typesAsValues(parsable(source)));
  return [...all].map((path) => ({ path, typesOnly: !values.has(path) }));
}

const files = [...new Glob("{src,ffi}/**/*.ts").scanSync(ROOT)].sort();
const sources = new Map(files.map((file) => [file, readFileSync(join(ROOT, file), "utf8")]));
const imports: Import[] = files.flatMap((from) =>
  importsIn(sources.get(from)!).map(({ path, typesOnly }) => ({
    from,
    to: path.startsWith(".") ? normalize(join(dirname(from), path)) : path,
    typesOnly,
  })),
);

function offences({ from, only = /./, not = /^$/, types = /^$/ }: Rule): string[] {
  return imports
    .filter((one) => from.test(one.from) && (!only.test(one.to) || not.test(one.to)))
    .filter((one) => !(one.typesOnly && types.test(one.to)))
    .map((one) => `${one.from} → ${one.to}`);
}

/** A folder of src/control/ or src/, or ffi; a file in none of these is a room of its own. */
function roomOf(file: string): string {
  return /^(src\/control\/[^/]+|src\/(?!control\/)[^/]+|ffi)(?=\/)/.exec(file)?.[0] ?? file;
}

/** Files that import between rooms in a cycle, by the arrow between the rooms. */
function cyclesIn(all: readonly Import[]): Map<string, string[]> {
  const targets = new Map<string, Set<string>>();
  for (const { from, to } of all) {
    const known = targets.get(roomOf(from)) ?? new Set();
    targets.set(roomOf(from), known.add(roomOf(to)));
  }
  const reaches = (from: string, to: string, seen = new Set<string>()): boolean =>
    [...(targets.get(from) ?? [])].some(
      (next) => next === to || (!seen.has(next) && reaches(next, to, seen.add(next))),
    );
  const cycles = new Map<string, string[]>();
  for (const { from, to } of all) {
    const rooms = [roomOf(from), roomOf(to)] as const;
    if (rooms[0] === rooms[1] || !reaches(rooms[1], rooms[0])) continue;
    const arrow = rooms.join(" → ");
    cycles.set(arrow, [...(cycles.get(arrow) ?? []), `${from} → ${to}`]);
  }
  return cycles;
}

describe("the import scan", () => {
  test("finds every form", () => {
    const source = `#!/usr/bin/env bun
      import a from "./a.ts";
      import { b, type C } from './b.ts';
      import type { D } from "./d.ts";
      import * as e from "./e.ts";
      import f, { g } from "./f.ts";
      import "./h.ts";
      export { i } from "./i.ts";
      export type { J } from "./j.ts";
      export * from "./k.ts";
      import {
        l,
        type M,
      } from "./l.ts";
      const n = await import("./n.ts");
      import type o from "./o.ts";
      export type * from "./p.ts";
      import { type Q, type R as S } from "./q.ts";
      export type T = { type: "x" };
      // import "./comment.ts";
      /* import "./comment.ts"; */
      const text = 'import "./text.ts"';
    `;
    const found = importsIn(source);
    const names = (which: typeof found) => which.map(({ path }) => path.slice(2, -3)).join("");
    expect(names(found)).toBe("abdefhijklnopq");
    expect(names(found.filter(({ typesOnly }) => typesOnly))).toBe("djopq");
  });

  test("finds the sources, and every imported file exists", () => {
    expect(files).toContain("src/data/loop.ts");
    expect(files).toContain("ffi/mmsg.ts");
    const missing = imports.filter(({ to }) => /^(src\/|ffi\/|\.\.)/.test(to) && !sources.has(to));
    expect(missing).toEqual([]);
    const withinTypes = /(\btypeof |[:<|&] *)import\(/;
    expect(files.filter((file) => withinTypes.test(sources.get(file)!))).toEqual([]);
  });

  test("finds cycles of two rooms and of more, and no others", () => {
    const files = ["a/1 b/1", "b/1 b/2", "b/2 c/1", "c/2 a/2", "c/1 d/1", "d/1 main", "e/1 e/2"];
    const all = files.map((line) => {
      const [from, to] = line.split(" ").map((file) => `src/${file}.ts`);
      return { from: from!, to: to!, typesOnly: false };
    });
    expect([...cyclesIn(all)]).toEqual([
      ["src/a → src/b", ["src/a/1.ts → src/b/1.ts"]],
      ["src/b → src/c", ["src/b/2.ts → src/c/1.ts"]],
      ["src/c → src/a", ["src/c/2.ts → src/a/2.ts"]],
    ]);
  });
});

test.each(RULES.map((rule) => [rule.title, rule] as const))("%s", (_, rule) => {
  expect(files.some((file) => rule.from.test(file))).toBe(true);
  expect(offences(rule)).toEqual([]);
});

test("rooms import each other in no cycle but the listed ones", () => {
  const found = cyclesIn(imports);
  expect([...found].filter(([arrow]) => !CYCLES.includes(arrow))).toEqual([]);
  expect(CYCLES.filter((arrow) => !found.has(arrow))).toEqual([]);
});

test("the data plane has no table's owner, which the main thread is", () => {
  const owners = /\b(\w+Owner|MailboxReader)\b/;
  const data = files.filter((file) => file.startsWith("src/data/"));
  expect(data.filter((file) => owners.test(sources.get(file)!))).toEqual([]);
  expect([...sources].filter(([, source]) => owners.test(source))).not.toEqual([]);
});

test("the entry loads the commands and the server on demand", () => {
  const loaded = parser
    .scanImports(parsable(sources.get("src/main.ts")!))
    .filter(({ kind }) => kind === "import-statement");
  expect(loaded.map(({ path }) => path)).toEqual(["./config/commands.ts", "./early-signals.ts"]);
});

test("the server resolves and connects to names in one file", () => {
  const inServer = /^src\/(?!cli\/|page\/|control\/kit\/names\.ts)/;
  const patterns = [
    /\b(?:connect|createConnection|request|get)\b[^;]*from "node:(?:net|tls|https?)"/,
    /"node:(?:dns|dgram|http2)|\bBun\.(?:connect|dns)\b/,
  ];
  /** Without comments and types. */
  const code = (file: string) => parser.transformSync(parsable(sources.get(file)!));
  const connects = (file: string) => patterns.some((pattern) => pattern.test(code(file)));
  expect(files.filter((file) => inServer.test(file) && connects(file))).toEqual([]);
  expect(connects("src/control/kit/names.ts")).toBe(true);
});
