/**
 * Archives that are the same whenever they are made from the same files: tar (POSIX ustar), with an
 * order, times and owners that are given and not found. A small writer of its own: the libraries at
 * hand bring ten packages for one header, or leave out the end of the archive.
 */
import { gzipSync } from "node:zlib";

/** A file, or a folder if it has no data. */
export interface Entry {
  /** Relative, with no "/" at either end. */
  readonly path: string;
  readonly data?: Uint8Array;
  /** Permissions; 0o644 unless given, 0o755 of a folder. */
  readonly mode?: number;
  /** Number of the user and group that own it; 0 unless given. */
  readonly owner?: number;
}

export const textEntry = (path: string, text: string): Entry => ({ path, data: Buffer.from(text) });

const BLOCK_BYTES = 512;
/** A name's field; ustar can put some folders elsewhere, which nothing here needs. */
const NAME_BYTES = 100;
/** The archive ends with two blocks of zeros. */
const END_BYTES = 2 * BLOCK_BYTES;

const padded = (bytes: number): number => Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;

/** A header's block, as POSIX lays it out. */
function header({ path, data, mode, owner = 0 }: Entry, prefix: string, timeS: number): Uint8Array {
  const isFolder = data === undefined;
  const name = `${prefix}${path}${isFolder ? "/" : ""}`;
  const block = Buffer.alloc(BLOCK_BYTES);
  if (Buffer.byteLength(name) > NAME_BYTES)
    throw new Error(
      `${name}: a name in an archive is at most ${NAME_BYTES} bytes; choose a shorter one`,
    );
  /** Numbers are octal digits that fill the field but for a last byte of 0. */
  const number = (value: number, at: number, bytes: number) =>
    block.write(value.toString(8).padStart(bytes - 1, "0"), at, "latin1");
  block.write(name, 0);
  number(mode ?? (isFolder ? 0o755 : 0o644), 100, 8);
  number(owner, 108, 8);
  number(owner, 116, 8);
  number(data?.length ?? 0, 124, 12);
  number(timeS, 136, 12);
  block.write(" ".repeat(8), 148, "latin1"); // the checksum counts its own field as spaces
  block.write(isFolder ? "5" : "0", 156, "latin1");
  block.write("ustar\x0000", 257, "latin1");
  if (owner === 0) {
    block.write("root", 265, "latin1");
    block.write("root", 297, "latin1");
  }
  const checksum = block.reduce((sum, byte) => sum + byte, 0);
  block.write(`${checksum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/**
 * The folders that the entries lie in, and the entries, in the order of their paths: a folder comes
 * before what it holds.
 */
function withFolders(entries: readonly Entry[]): Entry[] {
  const byPath = new Map<string, Entry>();
  for (const entry of entries) {
    for (let at = entry.path.indexOf("/"); at >= 0; at = entry.path.indexOf("/", at + 1)) {
      const path = entry.path.slice(0, at);
      if (!byPath.has(path)) byPath.set(path, { path });
    }
    byPath.set(entry.path, entry);
  }
  // so that "a/b" stands right behind "a"
  const parts = (path: string) => path.replaceAll("/", "\0");
  return [...byPath.values()].sort((a, b) => (parts(a.path) < parts(b.path) ? -1 : 1));
}

/**
 * @param prefix stands before each path as it is, such as "./"; one that ends in "/" is a folder of
 * the archive, too
 * @param timeS when everything was last changed, in Unix seconds
 * @throws Error for a name that is too long
 */
export function tar(entries: readonly Entry[], prefix: string, timeS: number): Uint8Array {
  const root = prefix === "" ? [] : [{ path: prefix.slice(0, -1) }];
  const blocks: Uint8Array[] = root.map((entry) => header(entry, "", timeS));
  for (const entry of withFolders(entries)) {
    blocks.push(header(entry, prefix, timeS));
    if (entry.data === undefined) continue;
    blocks.push(entry.data, new Uint8Array(padded(entry.data.length) - entry.data.length));
  }
  return Buffer.concat([...blocks, new Uint8Array(END_BYTES)]);
}

/** For texts: as small as can be, which Debian asks for. */
export function gzipText(text: string): Uint8Array {
  return gzipSync(text, { level: 9 });
}

/**
 * Level 6 of libdeflate: a third faster than zlib, and smaller. The header holds no time and no
 * name.
 */
export function gzip(data: Uint8Array): Uint8Array {
  return Bun.gzipSync(data as Uint8Array<ArrayBuffer>, { level: 6, library: "libdeflate" });
}
