import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { constants, mkdtempSync, readdirSync, readlinkSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Files, NO_ANSWER, plainFiles } from "../../../src/control/nodes/files.ts";
import { ThreadFiles } from "../../../src/control/nodes/thread-files.ts";
import { until } from "../../e2e/support/wait.ts";
import { HangingMount } from "../../support/hanging-mount.ts";

let folder: string;
let files: ThreadFiles;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "beacon-thread-files-"));
  files = new ThreadFiles();
});
afterEach(() => {
  files.end();
  rmSync(folder, { recursive: true });
});

const codeOf = (call: Promise<unknown>): Promise<unknown> =>
  call.then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error.code,
  );

describe("ThreadFiles", () => {
  test("writes, reads, renames and removes as node:fs/promises does", async () => {
    const done = async (each: Files, name: string) => {
      const path = join(folder, name);
      const file = await each.open(path, "wx", 0o600);
      const { bytesWritten } = await file.write(Buffer.from("..abcdef"), 2, 5, 3);
      await file.sync();
      const { mode, uid, size } = await file.stat();
      await file.close();
      await each.rename(path, `${path}.new`);
      const again = await each.open(`${path}.new`, constants.O_RDONLY);
      const into = Buffer.alloc(10, ".");
      const { bytesRead } = await again.read(into, 1, 6, 2);
      const { bytesRead: atEnd } = await again.read(into, 0, 1, 100);
      await again.close();
      await each.unlink(`${path}.new`);
      const codes = [
        await codeOf(each.open(path, "r")),
        await codeOf(each.open(folder, "wx")),
        await codeOf(each.unlink(path)),
      ];
      return {
        bytesWritten,
        mode,
        uid,
        size,
        bytesRead,
        text: into.toString("latin1"),
        atEnd,
        codes,
      };
    };
    const expected = await done(plainFiles, "plain");
    expect(await done(files, "thread")).toEqual(expected);
    expect(expected).toMatchObject({
      bytesWritten: 5,
      size: 8,
      bytesRead: 6,
      text: ".\0abcde...",
      atEnd: 0,
    });
  });

  test("names each kind of file", async () => {
    const [fifo, link] = [join(folder, "fifo"), join(folder, "link")];
    Bun.spawnSync(["mkfifo", fifo]);
    symlinkSync("nowhere", link);
    for (const path of [folder, fifo, link, import.meta.path]) {
      const kinds = async (each: Files) => {
        const info = await each.lstat(path);
        return [
          info.isFile(),
          info.isDirectory(),
          info.isSymbolicLink(),
          info.isFIFO(),
          info.isSocket(),
        ];
      };
      expect(await kinds(files)).toEqual(await kinds(plainFiles));
    }
  });

  test("fails calls that wait, and later ones, once it is given up", async () => {
    const waiting = codeOf(files.lstat(folder));
    files.giveUp();
    expect(await waiting).toBe(NO_ANSWER);
    expect(await codeOf(files.lstat(folder))).toBe(NO_ANSWER);
  });
});

const { missing } = HangingMount;
describe.skipIf(missing !== undefined)(
  `on a file system that hangs${missing ? ` (${missing})` : ""}`,
  () => {
    let mount: HangingMount;
    beforeEach(async () => {
      mount = await HangingMount.mount();
    });
    afterEach(() => mount.unmount());

    const openFiles = () =>
      readdirSync("/proc/self/fd").filter((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`).startsWith(mount.folder);
        } catch {
          return false; // closed by now
        }
      });

    test("calls fail in time, and succeed again once it answers; a file that opened too late is closed", async () => {
      const hurried = new ThreadFiles(600_000, 1);
      try {
        const path = join(mount.folder, "file");
        await (await hurried.open(path, "wx")).close();
        await mount.hang();
        const opening = codeOf(hurried.open(path, "r"));
        hurried.hurry();
        expect(await opening).toBe(NO_ANSWER);
        expect(await codeOf(hurried.lstat(folder))).toBe(NO_ANSWER); // the thread hangs
        await mount.go();
        hurried.relax();
        await until("calls succeed", async () => (await codeOf(hurried.lstat(path))) === undefined);
        await until("the file is closed", () => openFiles().length === 0);
      } finally {
        hurried.end();
      }
    });
  },
);
