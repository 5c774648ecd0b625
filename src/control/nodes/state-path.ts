/**
 * The paths that a state file is written to. Only files that begin with the state file's magic are
 * replaced, renamed or removed; anything else stays as it is, whoever put it there: root may have
 * named a system file, and in a shared directory others may plant links.
 */
import { constants } from "node:fs";
import { ConfigError, shown } from "../../config/units.ts";
import { type FileInfo, type Files, type OpenFile, plainFiles } from "./files.ts";

/** The first bytes of every state file. */
export const MAGIC: Buffer = Buffer.from("PBNODES\n", "latin1");

/** Appended to the path: the file while it is being written. */
export const TEMPORARY = ".tmp";
const UNFINISHED_MODE = 0o600;

/** A file that is not the beacon's. The message names it, and says what to do. */
export class ForeignFileError extends Error {
  override readonly name = "ForeignFileError";

  /** @param what follows the path in a sentence: `is a directory; …` */
  constructor(
    path: string,
    readonly what: string,
  ) {
    super(`${shown(path)} ${what}`);
  }
}

/** A regular file, open for reading. */
export interface RegularFile {
  readonly file: OpenFile;
  readonly info: FileInfo;
  /** As many of its first bytes as the magic has. */
  readonly start: Uint8Array;
}

/**
 * Opens a regular file. Nothing else is opened: a FIFO would block, and opening alone has effects
 * on some devices.
 * @returns undefined if nothing exists at the path
 * @throws ForeignFileError for anything but a regular file, errors of open(2)
 */
export async function openRegular(path: string, files: Files): Promise<RegularFile | undefined> {
  const before = await files.lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (before === undefined) return undefined;
  mustBeRegular(path, before);
  // The flags are for what may have taken its place meanwhile.
  const file = await files.open(
    path,
    constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW,
  );
  try {
    const info = await file.stat();
    mustBeRegular(path, info);
    const start = Buffer.alloc(MAGIC.length);
    const { bytesRead } = await file.read(start, 0, start.length, 0);
    return { file, info, start: start.subarray(0, bytesRead) };
  } catch (error) {
    await file.close();
    throw error;
  }
}

export function isState({ start }: RegularFile): boolean {
  return MAGIC.equals(start);
}

/**
 * Checks that a state file may be written to the path: nothing exists there, or a state file. An
 * empty file is not replaced either: some of the system's are empty, and none is a beacon's.
 * @throws ForeignFileError, errors of open(2)
 */
export async function mustBeReplaceable(path: string, files: Files): Promise<void> {
  const found = await inspect(path, files);
  if (found === undefined || isState(found)) return;
  throw new ForeignFileError(
    path,
    found.info.size === 0
      ? "is empty and may be another program's; remove it, or choose another path"
      : "is not a state file; move it away, or choose another path",
  );
}

/**
 * Checks that a file which a killed beacon may have left half-written can be removed, if there is
 * one. Earlier versions wrote the magic last: their file is empty or begins with zeros, and only
 * this user may read it.
 * @throws ForeignFileError, errors of open(2)
 */
export async function mustBeUnfinished(path: string, files: Files): Promise<void> {
  const found = await inspect(path, files);
  if (found === undefined || isState(found)) return;
  const { info, start } = found;
  const isOwn = info.uid === process.geteuid!() && (info.mode & 0o777) === UNFINISHED_MODE;
  if (isOwn && start.every((byte) => byte === 0)) return;
  throw new ForeignFileError(path, "is not a state file, and would be replaced; move it away");
}

/**
 * Checks before the start that the configured path can be a state file's. A path that cannot be
 * read passes: the beacon serves without it.
 * @returns what keeps the file from being saved, if anything
 * @throws ConfigError that names the path and what to do
 */
export async function checkStatePath(
  path: string,
  files: Files = plainFiles,
): Promise<string | undefined> {
  const found = await foreignAt(mustBeReplaceable(path, files));
  if (found !== undefined) throw new ConfigError(`--state-file: ${found}`);
  const inTheWay = await foreignAt(mustBeUnfinished(path + TEMPORARY, files));
  return inTheWay && `--state-file: ${inTheWay}`;
}

async function foreignAt(check: Promise<void>): Promise<string | undefined> {
  try {
    await check;
    return undefined;
  } catch (error) {
    return error instanceof ForeignFileError ? error.message : undefined;
  }
}

async function inspect(path: string, files: Files): Promise<RegularFile | undefined> {
  const found = await openRegular(path, files);
  await found?.file.close();
  return found;
}

function mustBeRegular(path: string, info: FileInfo): void {
  if (info.isFile()) return;
  if (info.isSymbolicLink())
    throw new ForeignFileError(
      path,
      "is a symbolic link; name the path that it leads to, or choose another",
    );
  const kind =
    (info.isDirectory() && "a directory") ||
    (info.isFIFO() && "a named pipe") ||
    (info.isSocket() && "a socket") ||
    "a device";
  throw new ForeignFileError(path, `is ${kind}; choose the path of a regular file`);
}
