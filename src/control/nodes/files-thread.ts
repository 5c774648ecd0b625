/** Entry of the thread that makes calls to a file system (files.ts), one after the other. */
import {
  closeSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { isMainThread, parentPort } from "node:worker_threads";

/** The fields of a file's information that callers need. */
export interface InfoNumbers {
  readonly mode: number;
  readonly uid: number;
  readonly size: number;
}

const infoOf = ({ mode, uid, size }: InfoNumbers): InfoNumbers => ({ mode, uid, size });

const operations = {
  lstat: (path: string) => infoOf(lstatSync(path)),
  open: openSync,
  stat: (fd: number) => infoOf(fstatSync(fd)),
  read: (fd: number, length: number, position: number) => {
    const bytes = new Uint8Array(length);
    return bytes.slice(0, readSync(fd, bytes, 0, length, position));
  },
  write: (fd: number, bytes: Uint8Array, position: number) =>
    writeSync(fd, bytes, 0, bytes.length, position),
  sync: fsyncSync,
  close: closeSync,
  rename: renameSync,
  unlink: unlinkSync,
};

export type Operation = keyof typeof operations;

export interface Call {
  readonly id: number;
  readonly operation: Operation;
  readonly args: readonly unknown[];
}

export interface Answer extends Pick<Call, "id" | "operation"> {
  readonly value?: unknown;
  readonly error?: { readonly message: string; readonly code: string | undefined };
}

if (!isMainThread) {
  parentPort?.on("message", ({ id, operation, args }: Call) => {
    let answer: Answer;
    try {
      const value = (operations[operation] as (...args: readonly unknown[]) => unknown)(...args);
      answer = { id, operation, value };
    } catch (error) {
      const { message, code } = error as NodeJS.ErrnoException;
      answer = { id, operation, error: { message, code } };
    }
    parentPort?.postMessage(answer);
  });
}
