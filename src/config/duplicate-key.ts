/** Duplicate keys in JSON, of which `JSON.parse` keeps the last without a word. */

export interface DuplicateKey {
  readonly key: string;
  /** From 1 on, of the first and the second. */
  readonly lines: readonly [number, number];
}

/** Strings and what gives them their place; numbers and words are skipped. */
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],\n]/g;

/** Finds the first key that an object has twice, at any depth. @param json valid JSON */
export function duplicateKey(json: string): DuplicateKey | undefined {
  /** The lines of the keys of each object that is open; undefined for an array. */
  const open: (Map<string, number> | undefined)[] = [];
  let mayBeKey = false;
  let line = 1;
  for (const [token] of json.matchAll(TOKEN)) {
    if (token === "\n") line++;
    else if (token === "{" || token === "[") open.push(token === "{" ? new Map() : undefined);
    else if (token === "}" || token === "]") open.pop();
    else if (token !== "," && mayBeKey) {
      const keys = open.at(-1);
      const key = JSON.parse(token) as string;
      const before = keys?.get(key);
      if (before !== undefined) return { key, lines: [before, line] };
      keys?.set(key, line);
    }
    if (token !== "\n") mayBeKey = token === "{" || token === ",";
  }
  return undefined;
}
