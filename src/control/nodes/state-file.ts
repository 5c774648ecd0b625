/**
 * The state file: the node table on disk, so that a beacon that is started again can relay to the
 * nodes of before at once, and not only when each has sent its next Discover.
 *
 * Numbers are little-endian, as on every platform that the beacon runs on, unless said otherwise.
 *
 *   header, 32 bytes
 *     0   8  magic: "PBNODES" and a newline
 *     8   2  version of the format: 1; 2 with keys
 *     10  2  bytes of an entry: 32; 64 with keys
 *     12  4  0
 *     16  8  when it was saved, in ms since 1970 by the host's clock
 *     24  4  how many entries follow
 *     28  4  CRC-32 (that of zlib) of all entries and then of bytes 0-27
 *   entries, and nothing behind the last
 *     0   4  node id; 0 for a local address, see below
 *     4   1  flags: 1, the node wants RelayDeliverDest; 8, its key is known
 *     5   1  number of the local address that the node sent to, 0 if unknown; earlier versions wrote 0 and ignore it
 *     6   2  port, in network byte order, not 0
 *     8   16 IPv6 address, in network byte order, IPv4 as ::ffff:a.b.c.d
 *     24  4  scope id, else 0
 *     28  4  seconds from the node's last refresh to when the file was saved
 *     32  32 with keys: the node's public key, or zeros
 *
 * Keys are saved while grants are required, so that a node's first key outlives a restart as the
 * node does; without them the file is as older beacons write and read it.
 *
 * An entry with node id 0 says which local address its number stands for: bytes 8 to 27 are that
 * address, the rest is 0. It stands before the nodes that name the number. Earlier versions skip
 * such entries.
 *
 * An age and not a time, as the clock that the table goes by starts with the process. A node can
 * stand there twice; the younger entry counts, and of two as young the later.
 *
 * The checksum is there to find what a crash or a bad disk left. CRC-32 is what costs nothing at
 * that (16 MiB in a millisecond; SHA-256 takes ten) and finds every damage of up to 32 bits in a
 * row; against one who writes the file on purpose no checksum would help. The header is written
 * last, when the count is known; only the magic is written first, as a half-written file would else
 * belong to nobody.
 *
 * A file belongs to one beacon: two that save to one path undo each other's work.
 */
import { constants } from "node:fs";
import { dirname } from "node:path";
import { crc32 } from "node:zlib";
import {
  ENDPOINT_PORT_MASK,
  hasNoPort,
  LOCAL_NUMBERS_END,
  localNumber,
  setLocalNumber,
} from "../../../ffi/endpoint.ts";
import { LocalAddresses } from "../../shared/local-addresses.ts";
import { GRANTS_REQUIRED, type SharedMemory } from "../../shared/memory.ts";
import { ADDED, NODE_LIMIT } from "../../shared/nodes.ts";
import type { NodeTableOwner } from "../../shared/nodes-owner.ts";
import { IS_SELF, SLOT_SEEN_S } from "../../shared/slots.ts";
import type { Pause } from "../kit/pacing.ts";
import { type Files, NO_ANSWER, type OpenFile, plainFiles } from "./files.ts";
import {
  RECORD_WORDS,
  RECORD_WORDS_WITH_KEY,
  readRecords,
  writeRecord,
  writeRecordKey,
} from "./record.ts";
import { ENTRY_SEEN_S, SLOTS_PER_SLICE, scanNodes, scanPause } from "./scan.ts";
import {
  ForeignFileError,
  isState,
  MAGIC,
  mustBeReplaceable,
  mustBeUnfinished,
  openRegular,
  TEMPORARY,
} from "./state-path.ts";

const FORMAT_VERSION = 1;
const FORMAT_VERSION_WITH_KEYS = 2;
const VERSION_AT = 8;
const ENTRY_BYTES_AT = 10;
const SAVED_MS_AT = 16;
const COUNT_AT = 24;
const CHECKSUM_AT = 28;
const HEADER_BYTES = 32;

/** Twice the limit of --max-nodes: a file with more entries is foreign, and not read. */
const ENTRIES_MAX = 2 ** 25;
/** What is written or read at a time: so many slices of a scan, if every slot holds a node. */
const CHUNK_WORDS = 32 * SLOTS_PER_SLICE * RECORD_WORDS_WITH_KEY;

/** Appended to the path of a file that was refused. */
const REJECTED = ".rejected";

/** What to do about an errno of a save. */
const ADVICE: Readonly<Record<string, string>> = {
  ENOENT: "there is no such directory: create it, or choose another path",
  ENOTDIR: "a part of the path is no directory: choose another path",
  EISDIR: "a directory is in the way: move it, or choose another path",
  EACCES: "this user may not write there: give it the directory, or choose another path",
  EPERM: "this user may not write there: give it the directory, or choose another path",
  EROFS: "that file system is read-only: choose another path",
  ENOSPC: "that disk is full: free some space",
  EDQUOT: "the quota is used up: free some space, or raise it",
  EBUSY: "the file is a mount of its own: mount its directory in place of it",
  ENAMETOOLONG: "choose a shorter path",
  ELOOP: "its symbolic links lead nowhere: choose another path",
  [NO_ANSWER]: "its file system does not answer: see to that mount",
  EIO: "that disk fails: look at the kernel's log",
};

/** A failed save. The message is one line: what failed, why, and what to do. */
export class StateFileError extends Error {
  override readonly name = "StateFileError";
}

export interface SaveResult {
  /** Entries written. A node that a removal moved meanwhile may be among them twice. */
  readonly nodes: number;
  readonly bytes: number;
  /** One line for the log. */
  readonly message: string;
}

export interface LoadOptions {
  /** Clock second that is now; entries get seconds before it, which may be negative. */
  readonly nowS: number;
  /** Whether packets can be sent to this endpoint; by the family of the socket, for example. */
  accepts(endpoint: Int32Array): boolean;
  /** The number of a local address here, 0 if packets cannot leave from it any more. */
  localNumber(address: Int32Array): number;
}

/** What became of a file's entries. */
interface LoadCounts {
  /** Nodes that are in the table now because of the file. */
  restored: number;
  /** Nodes not restored: silent for the time to live by now; */
  tooOld: number;
  /** without an id or port, or with an endpoint that was not accepted; */
  unusable: number;
  /** or for whom the table had no room. */
  noRoom: number;
  /** Entries that are local addresses, not nodes. */
  locals: number;
}

/**
 * restored: the file was read, whatever was in it. missing: there is none. damaged, newer (a newer
 * beacon's): it was renamed and the table left as it was. foreign (another program's, or no regular
 * file), unreadable: it was left there. unanswered: the file system did not answer in time.
 */
export type LoadOutcome =
  | "restored"
  | "missing"
  | "damaged"
  | "foreign"
  | "newer"
  | "unreadable"
  | "unanswered";

export interface LoadResult extends Readonly<LoadCounts> {
  readonly outcome: LoadOutcome;
  /** One line for the log: what there was, and what to do, if anything. */
  readonly message: string;
}

/** Why a file is not one to restore from. */
class Refusal extends Error {
  constructor(
    readonly outcome: "damaged" | "newer",
    message: string,
  ) {
    super(message);
  }
}

export class StateFile {
  readonly #stop = new AbortController();
  readonly #locals: LocalAddresses;
  #saving: Promise<SaveResult | undefined> | undefined;
  #last: Promise<SaveResult> | undefined;

  /**
   * @param path of the file; only a state file is ever replaced there (state-path.ts)
   * @param nodeTtlS nodes silent for this long are neither saved nor restored
   * @param wallMs the host's clock, ms since 1970
   */
  constructor(
    private readonly path: string,
    private readonly memory: SharedMemory,
    private readonly nodes: NodeTableOwner,
    private readonly nodeTtlS: number,
    private readonly wallMs: () => number = Date.now,
    private readonly files: Files = plainFiles,
  ) {
    this.#locals = new LocalAddresses(memory);
  }

  /**
   * Saves the table beside the workers' and the main thread's work; it takes two seconds for a
   * million slots. Either the whole new file is in place afterwards, on the disk, or the old one.
   * While one save goes on, another call joins it.
   * @param nowS clock second that is now
   * @returns undefined if `saveLast` went before it
   * @throws StateFileError when it failed, and the old file, if any, is as it was
   */
  save(nowS: number): Promise<SaveResult | undefined> {
    if (this.#last) return Promise.resolve(undefined);
    this.#saving ??= this.#write(nowS, scanPause(), this.#stop.signal).finally(() => {
      this.#saving = undefined;
    });
    return this.#saving;
  }

  /**
   * The same without pauses, for a beacon that ends: a save that goes on is given up for this one,
   * and none comes after it. Made when the workers have stopped, it holds what they last wrote.
   * @throws StateFileError as `save` does
   */
  saveLast(nowS: number): Promise<SaveResult> {
    this.#last ??= this.#writeLast(nowS);
    return this.#last;
  }

  async #writeLast(nowS: number): Promise<SaveResult> {
    this.#stop.abort();
    await this.#saving?.catch(() => {}); // whoever asked for that one hears of it
    const saved = await this.#write(nowS, () => Promise.resolve(), undefined);
    return saved!;
  }

  /** @returns undefined if the signal stopped it; the old file is as it was then */
  async #write(
    nowS: number,
    pause: Pause,
    signal: AbortSignal | undefined,
  ): Promise<SaveResult | undefined> {
    let temporary: string | undefined;
    try {
      await mustBeReplaceable(this.path, this.files);
      const beside = this.path + TEMPORARY;
      await mustBeUnfinished(beside, this.files);
      await this.#removeIfThere(beside);
      const file = await this.files.open(beside, "wx", 0o600);
      temporary = beside;
      let written: Written | undefined;
      try {
        written = await this.#writeTable(file, nowS, pause, signal);
        if (written !== undefined) await file.sync();
      } finally {
        await file.close();
      }
      if (written === undefined) {
        await this.#removeIfThere(temporary);
        return undefined;
      }
      await this.files.rename(temporary, this.path);
      await this.#syncDirectory();
      const { nodes } = written;
      return { ...written, message: `saved ${nodes} nodes to the state file ${this.#shown()}` };
    } catch (error) {
      if (temporary !== undefined) await this.#removeIfThere(temporary).catch(() => {});
      const { code, message } = error as NodeJS.ErrnoException;
      const reason =
        code === undefined ? message : `${code}: ${ADVICE[code] ?? "look after that path"}`;
      throw new StateFileError(`the state file ${this.#shown()} cannot be saved: ${reason}`, {
        cause: error,
      });
    }
  }

  /**
   * @returns how many entries were written, and the file's bytes; or undefined if the signal
   * stopped it
   */
  async #writeTable(
    file: OpenFile,
    nowS: number,
    pause: Pause,
    signal: AbortSignal | undefined,
  ): Promise<Written | undefined> {
    const withKeys = Atomics.load(this.memory.words, this.memory.rulesAt + GRANTS_REQUIRED) !== 0;
    const recordWords = withKeys ? RECORD_WORDS_WITH_KEY : RECORD_WORDS;
    const header = Buffer.alloc(HEADER_BYTES);
    MAGIC.copy(header);
    header.writeUInt16LE(withKeys ? FORMAT_VERSION_WITH_KEYS : FORMAT_VERSION, VERSION_AT);
    header.writeUInt16LE(recordWords * 4, ENTRY_BYTES_AT);
    header.writeBigUInt64LE(BigInt(Math.max(0, Math.floor(this.wallMs()))), SAVED_MS_AT);
    await writeWhole(file, MAGIC, 0);
    const words = new Int32Array(CHUNK_WORDS);
    const bytes = new Uint8Array(words.buffer);
    let used = 0;
    let count = 0;
    let checksum = 0;
    const flush = async (): Promise<void> => {
      const chunk = bytes.subarray(0, used * 4);
      checksum = crc32(chunk, checksum);
      await writeWhole(file, chunk, HEADER_BYTES + count * recordWords * 4);
      count += used / recordWords;
      used = 0;
    };
    let locals = 0;
    for (let number = 1; number < LOCAL_NUMBERS_END; number++) {
      const address = this.#locals.address(number);
      if (address === undefined) continue;
      setLocalNumber(address, 0, number);
      writeRecord(words, used, 0, address, 0);
      used += recordWords;
      locals++;
    }
    const isWhole = await scanNodes(
      this.nodes,
      (nodeId, entry) => {
        const ageS = Math.max(0, nowS - entry[ENTRY_SEEN_S]!); // heard since the save began: 0
        // one of the bridge's was perhaps never heard by UDP
        if (ageS >= this.nodeTtlS || hasNoPort(entry, 0)) return;
        if ((entry[0]! & IS_SELF) !== 0) return; // another one after a restart
        writeRecord(words, used, nodeId, entry, ageS);
        if (withKeys) writeRecordKey(words, used, this.nodes.keyOf(nodeId));
        used += recordWords;
      },
      {
        pause: async () => {
          if (words.length - used < SLOTS_PER_SLICE * recordWords) await flush();
          await pause();
        },
        ...(signal ? { signal } : {}),
      },
    );
    if (!isWhole) return undefined;
    await flush();
    header.writeUInt32LE(count, COUNT_AT);
    header.writeUInt32LE(crc32(header.subarray(0, CHECKSUM_AT), checksum), CHECKSUM_AT);
    await writeWhole(file, header, 0);
    return { nodes: count - locals, bytes: HEADER_BYTES + count * recordWords * 4 };
  }

  /**
   * Restores what the file holds, each node as old as it is by now: the age that was saved and what
   * passed since by the host's clock, or nothing if that went backwards. Nodes that the table knows
   * already stay as they are unless the file's are younger. The file is read twice, a piece at a
   * time, as nothing may enter the table before the checksum is known to be right. Whatever is or
   * is not there, it does not throw. A file that is refused is kept under its name and ".rejected",
   * in place of an older one.
   */
  async load(options: LoadOptions): Promise<LoadResult> {
    const counts: LoadCounts = { restored: 0, tooOld: 0, unusable: 0, noRoom: 0, locals: 0 };
    const done = (outcome: LoadOutcome, message: string): LoadResult => ({
      outcome,
      ...counts,
      message,
    });
    const name = `the state file ${this.#shown()}`;
    try {
      const found = await openRegular(this.path, this.files);
      if (found === undefined)
        return done("missing", `${name} does not exist yet: starting without it`);
      const { file, info } = found;
      try {
        if (!isState(found))
          throw new ForeignFileError(this.path, "is not a state file; choose another path");
        const header = await readHeader(file, info.size);
        await this.#restore(file, header, options, counts);
        const { locals } = counts;
        return done(
          "restored",
          `${name} held ${header.count - locals} nodes: ${shownCounts(counts)}`,
        );
      } finally {
        await file.close();
      }
    } catch (error) {
      if (error instanceof Refusal) {
        const kept = await this.#keepAside();
        return done(error.outcome, `${name} ${error.message}: starting without it; ${kept}`);
      }
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === NO_ANSWER)
        return done(
          "unanswered",
          `${name} cannot be read: ${ADVICE[NO_ANSWER]}; starting without it`,
        );
      if (error instanceof ForeignFileError)
        return done("foreign", `${name} ${error.what}: starting without it`);
      return done(
        "unreadable",
        `${name} cannot be read (${code ?? message}): starting without it; let this user read it, or choose another path`,
      );
    }
  }

  async #restore(
    file: OpenFile,
    header: Header,
    options: LoadOptions,
    counts: LoadCounts,
  ): Promise<void> {
    const elapsedS = Math.max(0, Math.floor((this.wallMs() - header.savedMs) / 1000));
    const numbers = new Uint8Array(LOCAL_NUMBERS_END); // by the file's numbers
    for await (const chunk of recordsIn(file, header)) {
      const words = new Int32Array(chunk.buffer, chunk.byteOffset, chunk.length / 4);
      const bytes = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
      for (const { nodeId, endpoint, flags, ageS, hasKey, keyAt } of readRecords(
        words,
        header.recordWords,
      )) {
        const local = localNumber(endpoint, 0);
        if (nodeId === 0 && local !== 0) {
          endpoint[0] = endpoint[0]! & ENDPOINT_PORT_MASK;
          if (numbers[local] === 0) numbers[local] = options.localNumber(endpoint);
          counts.locals++;
          continue;
        }
        setLocalNumber(endpoint, 0, numbers[local]!);
        if (nodeId === 0 || hasNoPort(endpoint, 0) || !options.accepts(endpoint)) counts.unusable++;
        else if (ageS + elapsedS >= this.nodeTtlS) counts.tooOld++;
        else {
          this.#record(nodeId, endpoint, flags, options.nowS - ageS - elapsedS, counts);
          if (hasKey) this.nodes.keepKey(nodeId, endpoint, bytes, keyAt);
        }
      }
    }
  }

  #record(
    nodeId: number,
    endpoint: Int32Array,
    flags: number,
    seenS: number,
    counts: LoadCounts,
  ): void {
    const slot = this.nodes.find(nodeId);
    if (slot >= 0 && this.memory.words[slot + SLOT_SEEN_S]! > seenS) return;
    const result = this.nodes.record(nodeId, endpoint, 0, flags, seenS);
    if (result === ADDED) counts.restored++;
    else if (result >= NODE_LIMIT) counts.noRoom++;
  }

  /**
   * Renames a file that was refused, so that no save replaces it. What another program keeps under
   * the new name stays.
   * @returns where the file is, for a message
   */
  async #keepAside(): Promise<string> {
    const kept = this.path + REJECTED;
    try {
      await mustBeReplaceable(kept, this.files);
      await this.files.rename(this.path, kept);
      return `it is kept as ${JSON.stringify(kept)}`;
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      return `it could not be renamed (${code ?? message}), and the next save replaces it: copy it if it matters`;
    }
  }

  async #removeIfThere(path: string): Promise<void> {
    try {
      await this.files.unlink(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }

  /**
   * Makes a rename last through a loss of power. Where that is not to be had (a directory that may
   * be written but not read, a file system without it), there is a whole file all the same, the new
   * one or the old.
   */
  async #syncDirectory(): Promise<void> {
    try {
      const directory = await this.files.open(
        dirname(this.path),
        constants.O_RDONLY | constants.O_DIRECTORY,
      );
      try {
        await directory.sync();
      } finally {
        await directory.close();
      }
    } catch {
      // Nothing to do about it, as said.
    }
  }

  #shown(): string {
    return JSON.stringify(this.path);
  }
}

/** What a save wrote: entries, and bytes in all. */
type Written = Pick<SaveResult, "nodes" | "bytes">;

interface Header {
  readonly count: number;
  readonly recordWords: number;
  readonly savedMs: number;
}

/**
 * Reads the header, and then all entries for the checksum.
 * @param file begins with the magic
 * @throws Refusal if this is no file of this format, whole and of this version
 */
async function readHeader(file: OpenFile, fileBytes: number): Promise<Header> {
  const header = Buffer.alloc(HEADER_BYTES);
  const got = await readWhole(file, header, 0);
  if (got < HEADER_BYTES) throw new Refusal("damaged", "is damaged (it ends within its header)");
  const version = header.readUInt16LE(VERSION_AT);
  if (version > FORMAT_VERSION_WITH_KEYS)
    throw new Refusal(
      "newer",
      `is of a newer beacon (format ${version}, this one knows ${FORMAT_VERSION_WITH_KEYS})`,
    );
  const count = header.readUInt32LE(COUNT_AT);
  const recordWords = version === FORMAT_VERSION_WITH_KEYS ? RECORD_WORDS_WITH_KEY : RECORD_WORDS;
  const isOurs =
    version >= FORMAT_VERSION && header.readUInt16LE(ENTRY_BYTES_AT) === recordWords * 4;
  if (!isOurs || count > ENTRIES_MAX)
    throw new Refusal("damaged", "is damaged (its header makes no sense)");
  const bytes = HEADER_BYTES + count * recordWords * 4;
  if (fileBytes !== bytes)
    throw new Refusal("damaged", `is damaged (it has ${fileBytes} bytes in place of ${bytes})`);
  const found = { count, recordWords, savedMs: Number(header.readBigUInt64LE(SAVED_MS_AT)) };
  let checksum = 0;
  for await (const chunk of recordsIn(file, found)) checksum = crc32(chunk, checksum);
  checksum = crc32(header.subarray(0, CHECKSUM_AT), checksum);
  if (checksum !== header.readUInt32LE(CHECKSUM_AT))
    throw new Refusal("damaged", "is damaged (its checksum does not match)");
  return found;
}

/** Yields whole entries in chunks, each valid until the next; ends early with the file. */
async function* recordsIn(
  file: OpenFile,
  { count, recordWords }: Pick<Header, "count" | "recordWords">,
): AsyncGenerator<Uint8Array> {
  const entryBytes = recordWords * 4;
  const buffer = new Uint8Array(Math.min(CHUNK_WORDS * 4, count * entryBytes));
  for (let left = count * entryBytes, at = HEADER_BYTES; left > 0; ) {
    const got = await readWhole(file, buffer.subarray(0, Math.min(left, buffer.length)), at);
    const whole = got - (got % entryBytes);
    if (whole === 0) return;
    yield buffer.subarray(0, whole);
    at += whole;
    left -= whole;
  }
}

/** Fills `bytes` from byte `at` of the file on. @returns how many there were */
async function readWhole(file: OpenFile, bytes: Uint8Array, at: number): Promise<number> {
  let got = 0;
  while (got < bytes.length) {
    const { bytesRead } = await file.read(bytes, got, bytes.length - got, at + got);
    if (bytesRead === 0) break;
    got += bytesRead;
  }
  return got;
}

async function writeWhole(file: OpenFile, bytes: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, at + done);
    done += bytesWritten;
  }
}

function shownCounts({ restored, tooOld, unusable, noRoom }: LoadCounts): string {
  const parts = [`${restored} restored`];
  if (tooOld > 0) parts.push(`${tooOld} too old`);
  if (unusable > 0) parts.push(`${unusable} not to be reached from this address`);
  if (noRoom > 0) parts.push(`${noRoom} without room: raise --max-nodes`);
  return parts.join(", ");
}
