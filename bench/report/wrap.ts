export const COLUMNS_MAX = 100;

/** Breaks a text into lines of at most 100 columns, all but the first indented; a longer word stays whole. */
export function wrap(text: string, indent = 0): string[] {
  const lines: string[] = [];
  let rest = text;
  while (rest.length > COLUMNS_MAX) {
    const space = rest.lastIndexOf(" ", COLUMNS_MAX);
    const at = space > indent ? space : rest.indexOf(" ", COLUMNS_MAX);
    if (at < 0) break;
    lines.push(rest.slice(0, at).trimEnd());
    rest = " ".repeat(indent) + rest.slice(at + 1);
  }
  return [...lines, rest.trimEnd()];
}
