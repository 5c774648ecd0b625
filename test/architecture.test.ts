/** Which room may know which: the import directions of the sources. An import of a type counts like any other. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { Glob } from "bun";

const ROOT = join(import.meta.dir, "..");

/** Without comments. No source here has `//` or `/*` inside a string other than after a colon. */
function withoutComments(source: string): string {
  return source.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|[^:])\/\/.*$/gm, "$1");
}

/** Where each import of a source leads: as it is written, and whether it is of types alone. */
function importsIn(source: string): { path: string; typesOnly: boolean }[] {
  const statements = /\b(?:import|export)\s+(type\s+)?(?:[\w*\s{},$]+?\s+from\s+)?["']([^"'\n]+)["']/g;
  const calls = /\b(?:import|require)\s*\(\s*["']([^"'\n]+)["']/g;
  const text = withoutComments(source);
  return [
    ...[...text.matchAll(statements)].map(([, types, path]) => ({
      path: path!,
      typesOnly: types !== undefined,
    })),
    ...[...text.matchAll(calls)].map(([, path]) => ({ path: path!, typesOnly: false })),
  ];
}

interface Import {
  readonly from: string;
  /** A path from the root for what lies in this tree, else the package's name. */
  readonly to: string;
  readonly typesOnly: boolean;
}

const files = ["src", "ffi"].flatMap((folder) => [...new Glob(`${folder}/**/*.ts`).scanSync(ROOT)]).sort();
const sources = new Map(files.map((file) => [file, readFileSync(join(ROOT, file), "utf8")]));
const imports: Import[] = files.flatMap((from) =>
  importsIn(sources.get(from)!).map(({ path, typesOnly }) => ({
    from,
    to: path.startsWith(".") ? normalize(join(dirname(from), path)) : path,
    typesOnly,
  })),
);

/** Imports from files that `from` matches, as lines for a failed comparison. */
function importsFrom(from: RegExp, to: (path: string, one: Import) => boolean): string[] {
  return imports
    .filter((one) => from.test(one.from) && to(one.to, one))
    .map((one) => `${one.from} → ${one.to}`);
}

const isConfig = (path: string): boolean => /^src\/config(\.ts|\/)/.test(path);
/** How addresses are written, text from outside is shown, and an operator's files are read: not the configuration, though it does so too. */
const isLanguage = (path: string): boolean => /^src\/config\/(units|file|duplicate-key)\.ts$/.test(path);
const isTree = (path: string): boolean => /^(src|ffi)\//.test(path) || path.startsWith("..");

describe("the reading of imports", () => {
  test("sees every form", () => {
    const source = `
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
      // import "./comment.ts";
      /* import "./comment.ts"; */
    `;
    const found = importsIn(source);
    expect(found.map(({ path }) => path)).toEqual("abdefhijkln".split("").map((name) => `./${name}.ts`));
    expect(found.filter(({ typesOnly }) => typesOnly).map(({ path }) => path)).toEqual(["./d.ts", "./j.ts"]);
  });

  test("misses none that Bun's own parser finds", () => {
    const transpiler = new Bun.Transpiler({ loader: "ts" });
    for (const [file, source] of sources) {
      const found = importsIn(source).map(({ path }) => path);
      for (const { path } of transpiler.scanImports(source.replace(/^#!.*/, "")))
        expect([file, found]).toEqual([file, expect.arrayContaining([path])]);
    }
  });

  test("finds the sources, and nothing that is not there", () => {
    expect(files).toContain("src/data/loop.ts");
    expect(files).toContain("ffi/mmsg.ts");
    const missing = imports.filter(({ to }) => isTree(to) && !sources.has(to));
    expect(missing).toEqual([]);
  });
});

test("ffi knows nothing of beacons", () => {
  expect(importsFrom(/^ffi\//, (to) => isTree(to) && !to.startsWith("ffi/"))).toEqual([]);
});

test("only ffi knows pointers", () => {
  expect(importsFrom(/^src\//, (to) => to === "bun:ffi")).toEqual([]);
});

test("the data plane knows nothing of the control plane, the beacon and its configuration", () => {
  const allowed = /^(ffi\/|src\/data\/|src\/shared\/|src\/protocol\.ts$|node:worker_threads$)/;
  expect(importsFrom(/^src\/data\//, (to) => !allowed.test(to))).toEqual([]);
});

test("what both planes share rests on ffi and the protocol alone", () => {
  const allowed = /^(ffi\/|src\/shared\/|src\/protocol\.ts$)/;
  expect(importsFrom(/^src\/shared\//, (to) => !allowed.test(to))).toEqual([]);
});

test("the protocol rests on ffi alone", () => {
  expect(importsFrom(/^src\/protocol\.ts$/, (to) => !to.startsWith("ffi/"))).toEqual([]);
});

test("the control plane meets the data plane at the worker's file, and at that for the bridge's frames", () => {
  const meetings = /^src\/data\/(worker|frames)\.ts$/;
  expect(importsFrom(/^src\/control\//, (to) => to.startsWith("src/data/") && !meetings.test(to))).toEqual(
    [],
  );
});

test("the control plane is handed its configuration: it knows its types, and how it is written", () => {
  const values = (to: string, { typesOnly }: Import) => isConfig(to) && !typesOnly && !isLanguage(to);
  expect(importsFrom(/^src\/control\//, values)).toEqual([]);
  expect(importsFrom(/^src\/control\//, (to) => /^src\/(beacon|serve|main)\.ts$/.test(to))).toEqual([]);
});

test("the configuration knows nothing of what is configured", () => {
  expect(importsFrom(/^src\/config(\.ts$|\/)/, (to) => isTree(to) && !isConfig(to))).toEqual([]);
});

test("only the entry and the beacon read the configuration, and only its file the command line", () => {
  const elsewhere = importsFrom(
    /^(?!src\/(main|serve|beacon|config)\.ts$|src\/(config|cli)\/)/,
    (to, { typesOnly }) => isConfig(to) && !typesOnly && !isLanguage(to),
  );
  expect(elsewhere).toEqual([]);
  expect(importsFrom(/^(?!src\/config\.ts$|src\/cli\/)/, (to) => to === "commander")).toEqual([]);
});

test("the commands beside the server know the control plane's types alone, and nothing of the data plane", () => {
  const allowed = (to: string) =>
    /^src\/(cli|view)\/|^src\/protocol\.ts$|^package\.json$/.test(to) || isConfig(to);
  const types = (to: string, { typesOnly }: Import) => typesOnly && to.startsWith("src/control/");
  expect(importsFrom(/^src\/cli\//, (to, one) => isTree(to) && !allowed(to) && !types(to, one))).toEqual([
    "src/cli/check-config.ts → src/control/inputs.ts", // which it is for: to read files as the server's start does
  ]);
  expect(
    importsFrom(/^src\/view\//, (to, one) => isTree(to) && !to.startsWith("src/view/") && !types(to, one)),
  ).toEqual([]);
});

test("only the entry knows the commands beside the server, and imports them, and the server, on demand", () => {
  expect(importsFrom(/^(?!src\/cli\/|src\/main\.ts$)/, (to) => to.startsWith("src/cli/"))).toEqual([]);
  const loaded = new Bun.Transpiler({ loader: "ts" })
    .scanImports(sources.get("src/main.ts")!.replace(/^#!.*/, ""))
    .filter(({ kind }) => kind === "import-statement");
  expect(loaded.map(({ path }) => path)).toEqual(["./config/commands.ts", "./early-signals.ts"]);
  expect(importsFrom(/^src\/(config\/commands|early-signals)\.ts$/, () => true)).toEqual([]);
});

test("the page runs in a browser: it has its own sources, what shows numbers, and types; and nobody imports it", () => {
  const allowed = /^(src\/page\/|src\/view\/|uplot$)/;
  const others = (to: string, { typesOnly }: Import) => !allowed.test(to) && !typesOnly;
  expect(importsFrom(/^src\/(page|view)\//, others)).toEqual([]);
  expect(importsFrom(/^(?!src\/page\/)/, (to) => to.startsWith("src/page/"))).toEqual([]);
});

test("what supervises loads ffi, and no module of the server", () => {
  const allowed = /^(ffi\/|src\/supervise\/|src\/(program-command|early-signals)\.ts$|node:)/;
  const others = (to: string, { typesOnly }: Import) => !allowed.test(to) && !typesOnly;
  expect(importsFrom(/^src\/(supervise\/|program-command\.ts$)/, others)).toEqual([]);
});

test("nobody imports the entry", () => {
  expect(importsFrom(/./, (to) => to === "src/main.ts")).toEqual([]);
});

test("the server resolves and connects to names in one file", () => {
  const server = files.filter((file) => /^src\/(?!cli\/|page\/|control\/kit\/names\.ts)/.test(file));
  const patterns = [
    /\b(?:connect|createConnection|request|get)\b[^;]*from "node:(?:net|tls|https?)"/,
    /"node:(?:dns|dgram|http2)|\bBun\.(?:connect|dns)\b/,
  ];
  const connects = (file: string) =>
    patterns.some((pattern) => pattern.test(withoutComments(sources.get(file)!)));
  expect(server.filter(connects)).toEqual([]);
  expect(connects("src/control/kit/names.ts")).toBe(true);
});
