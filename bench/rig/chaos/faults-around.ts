/** Faults of what a beacon needs around it: its registry, its disk, its file descriptors. */
import { closeSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { exhaustFiles } from "../../../test/e2e/support/host.ts";
import { correct, sayBytes, silent } from "../../../test/support/scripted-registry.ts";
import { type Fault, hasLogged, logs } from "./fault.ts";
import { nobody } from "./pairs.ts";
import { command, DISK_BYTES, type Stage } from "./stage.ts";

/** A round with the registry begins every second, a save of the state every second. */
const ROUND_BACK_MS = 4000;

/** @param says what the subject complains of, before "peers stay as they are" */
function registryFault(
  name: string,
  says: RegExp,
  begin: (stage: Stage) => Promise<void>,
  end: (stage: Stage) => Promise<void>,
): Fault {
  return {
    name,
    forMs: [2500, 12_000],
    concerns: nobody,
    backWithinMs: ROUND_BACK_MS,
    heldUpBy: ["subject paused", "files exhausted"],
    hiddenBy: ["files exhausted"], // which is what it complains of then
    async begin(stage) {
      const { subject } = stage.beacons;
      const trace = logs(subject, new RegExp(`${says.source}.*peers stay as they are$`));
      await begin(stage);
      let roundsBefore = Number.POSITIVE_INFINITY;
      const rounds = async () => (await subject.stats())?.mesh.registryRounds["ok"] ?? 0;
      return {
        async end() {
          await end(stage);
          roundsBefore = await rounds();
        },
        isWell: async () => (await rounds()) > roundsBefore,
        trace,
      };
    },
  };
}

/** No registry: a length that no frame has. */
const GARBAGE = Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n");

export const REGISTRY_FAULTS: readonly Fault[] = [
  registryFault(
    "registry killed",
    /ECONNREFUSED/,
    (stage) => stage.registry.close(),
    (stage) => stage.startRegistry(),
  ),
  registryFault(
    "registry hanging",
    /closed the connection|whole answer/,
    async ({ registry }) => {
      registry.behaviour = silent;
    },
    async (stage) => {
      // With its connections: who waits for an answer may do so for ten seconds.
      const beacons = [...stage.registry.registered];
      await stage.registry.close();
      await stage.startRegistry();
      for (const [id, address] of beacons) stage.registry.registered.set(id, address);
    },
  ),
  registryFault(
    "registry garbage",
    /announces a message of \d+ bytes/,
    async ({ registry }) => {
      registry.behaviour = sayBytes(GARBAGE);
    },
    async ({ registry }) => {
      registry.behaviour = correct;
    },
  ),
];

function diskFault(
  name: string,
  errno: string,
  begin: (stage: Stage) => Promise<void>,
  end: (stage: Stage) => Promise<void>,
): Fault {
  return {
    name,
    forMs: [2000, 8000],
    concerns: nobody,
    backWithinMs: ROUND_BACK_MS,
    heldUpBy: ["subject paused"],
    async begin(stage) {
      const { subject } = stage.beacons;
      const trace = logs(subject, new RegExp(`^the state file .* cannot be saved: ${errno}`));
      await begin(stage);
      let hasSaved = async () => false;
      return {
        async end() {
          await end(stage);
          hasSaved = hasLogged(subject, /^saved \d+ nodes to the state file/);
        },
        isWell: () => hasSaved(),
        trace,
      };
    },
  };
}

/** A save that was under way frees what the file before had: that is taken as well. */
const REFILL_MS = 50;
const BLOCK = new Uint8Array(4096);
let refilling: Timer | undefined;

function fill(path: string): void {
  const fd = openSync(path, "a");
  try {
    for (let bytes = 0; bytes < DISK_BYTES; bytes += BLOCK.length) writeSync(fd, BLOCK);
  } catch {
    // It is full now.
  } finally {
    closeSync(fd);
  }
}

const filler = ({ disk }: Stage) => join(disk, "filler");
const away = ({ stateFolder }: Stage) => `${stateFolder}-away`;

const DISKS: readonly Fault[] = [
  diskFault(
    "disk full",
    "ENOSPC",
    async (stage) => {
      fill(filler(stage));
      refilling = setInterval(() => fill(filler(stage)), REFILL_MS);
    },
    async (stage) => {
      clearInterval(refilling);
      rmSync(filler(stage));
    },
  ),
  diskFault(
    "disk read-only",
    "EROFS",
    async ({ disk }) => remount(disk, "ro"),
    async ({ disk }) => remount(disk, "rw"),
  ),
  diskFault(
    "state folder gone",
    "ENOENT",
    async (stage) => renameSync(stage.stateFolder, away(stage)),
    async (stage) => renameSync(away(stage), stage.stateFolder),
  ),
];

/** A save that has the new file open keeps the disk writable for a moment. */
const REMOUNT_TRIES_MAX = 100;

async function remount(disk: string, mode: "ro" | "rw"): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return command("mount", "-o", `remount,${mode}`, disk);
    } catch (error) {
      if (attempt === REMOUNT_TRIES_MAX) throw error;
      await Bun.sleep(10);
    }
  }
}

const FILES: Fault = {
  name: "files exhausted",
  forMs: [2500, 8000],
  concerns: nobody,
  backWithinMs: ROUND_BACK_MS,
  heldUpBy: ["subject paused"],
  async begin({ beacons: { subject } }) {
    const trace = logs(subject, /EMFILE/);
    const giveBack = await exhaustFiles(subject.pid, subject.host, Number(subject.http.port));
    let hasSaved = async () => false;
    return {
      async end() {
        giveBack();
        hasSaved = hasLogged(subject, /^saved \d+ nodes to the state file/);
      },
      isWell: async () => (await subject.stats()) !== undefined && (await hasSaved()),
      trace,
    };
  },
};

/** Not at once: a save has one reason to fail. */
export const DISK_FAULTS: readonly Fault[] = [...DISKS, FILES];
