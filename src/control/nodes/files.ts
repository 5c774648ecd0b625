/** The calls to a file system that the state file needs, in the shape of node:fs/promises. */
import { lstat, open, rename, unlink } from "node:fs/promises";

/** The result of lstat(2) for a file. */
export interface FileInfo {
  readonly mode: number;
  readonly uid: number;
  readonly size: number;
  isFile(): boolean;
  isDirectory(): boolean;
  isSymbolicLink(): boolean;
  isFIFO(): boolean;
  isSocket(): boolean;
}

export interface OpenFile {
  stat(): Promise<FileInfo>;
  read(
    into: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesRead: number }>;
  write(
    from: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesWritten: number }>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface Files {
  lstat(path: string): Promise<FileInfo>;
  open(path: string, flags: string | number, mode?: number): Promise<OpenFile>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
}

/** For programs that have nothing else to do meanwhile. */
export const plainFiles: Files = { lstat, open, rename, unlink };

/** The code of the error for a call that was not answered in time. */
export const NO_ANSWER = "ETIMEDOUT";
