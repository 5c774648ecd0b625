/**
 * Network namespaces that go away again: ip-netns(8) and veth(4), with names that tell which process they belong to.
 *
 * Everything here is called after its owner, this process: namespaces pilot-rig-<pid>-<label>, interfaces in the root
 * namespace pr<pid>…, folders pilot-rig-<pid>-…. What this process made is removed when it ends; what a process left that
 * was killed, by removeLeftovers() of any later one.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PREFIX = "pilot-rig-";
/** An interface's name has 15 characters at most (IFNAMSIZ of linux/if.h, less the zero), so its prefix is short. */
const LINK_PREFIX = "pr";
/** Where ip keeps a file for each namespace. */
const NAMESPACES = "/run/netns";
/** Rounds of killing what lives in a namespace: something killed may have started something just before. */
const KILL_ROUNDS_MAX = 50;
const KILL_WAIT_MS = 10;
/** What Ethernet carries. */
export const MTU_DEFAULT = 1500;

/** What runs have made and not yet removed. */
const mine = new Set<Namespace>();
let removesAtExit = false;

export class Namespace {
  private constructor(readonly name: string) {}

  /** A new namespace with its loopback interface up. @param label unique in this process, of letters, digits and dashes */
  static create(label: string): Namespace {
    if (!removesAtExit) process.on("exit", removeOwn);
    removesAtExit = true;
    const namespace = new Namespace(`${PREFIX}${process.pid}-${label}`);
    mine.add(namespace);
    must(["ip", "netns", "add", namespace.name]);
    namespace.ip("link set lo up");
    return namespace;
  }

  /** The command line that runs `command` in here. */
  exec(...command: string[]): string[] {
    return ["ip", "netns", "exec", this.name, ...command];
  }

  /** Runs a short command in here to its end. @returns its standard output @throws Error, with what it said, if it fails */
  run(command: readonly string[], input = ""): string {
    return must(this.exec(...command), input);
  }

  /** Runs lines of ip's own language (ip-link(8), ip-address(8), ip-route(8)) in here, in one call. */
  ip(...lines: string[]): void {
    must(["ip", "-n", this.name, "-batch", "-"], `${lines.join("\n")}\n`);
  }

  /** Sets kernel parameters of this namespace, by their names below /proc/sys with dots. */
  sysctl(settings: Readonly<Record<string, string | number>>): void {
    const assignments = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
    if (assignments.length > 0) this.run(["sysctl", "-q", "-w", ...assignments]);
  }

  /** Ends every process in here, and removes the namespace with its interfaces. */
  remove(): void {
    removeByName(this.name);
    mine.delete(this);
  }
}

/** One end of a cable. */
export interface LinkEnd {
  /** Where it is; the root namespace unless given. */
  readonly namespace?: Namespace | undefined;
  /** The interface's name; see rootLink() for one in the root namespace. */
  readonly link: string;
  /** With prefix length: "10.0.0.1/24". */
  readonly addresses?: readonly string[];
}

let rootLinks = 0;

/** A name for an interface in the root namespace, which clean-up recognises. */
export function rootLink(): string {
  return `${LINK_PREFIX}${process.pid}x${rootLinks++}`;
}

/** Lays a cable, veth(4), between two places, and switches it on. */
export function connect(one: LinkEnd, other: LinkEnd, mtu = MTU_DEFAULT): void {
  const place = ({ namespace }: LinkEnd) => namespace?.name ?? "1"; // process 1 lives in the root namespace
  must(
    ["ip", "link", "add", one.link, "netns", place(one), "mtu", String(mtu), "type", "veth"].concat([
      "peer",
      "name",
      other.link,
      "netns",
      place(other),
      "mtu",
      String(mtu),
    ]),
  );
  for (const end of [one, other]) switchOn(end);
}

/** Gives an interface its addresses and brings it up. IPv6 addresses are usable at once: nobody else could have them. */
export function switchOn({ namespace, link, addresses = [] }: LinkEnd): void {
  const lines = [
    ...addresses.map(
      (address) => `address add ${address} dev ${link}${address.includes(":") ? " nodad" : ""}`,
    ),
    `link set ${link} up`,
  ];
  must(["ip", ...(namespace ? ["-n", namespace.name] : []), "-batch", "-"], `${lines.join("\n")}\n`);
}

/** A folder for files of this run, which goes away like its namespaces. */
export function scratchFolder(): string {
  if (!removesAtExit) process.on("exit", removeOwn);
  removesAtExit = true;
  return mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`));
}

/** Removes what runs have left whose process has ended, and everything that still runs in it. @returns names of what was removed */
export function removeLeftovers(): string[] {
  return removeAll((pid) => !lives(pid));
}

/** Ends all programs in this process's namespaces, and removes them with their cables and folders. */
function removeOwn(): void {
  removeAll((pid) => pid === process.pid);
  mine.clear();
}

function removeAll(doomed: (pid: number) => boolean): string[] {
  const belongs = (prefix: string) => (name: string) => {
    const pid = new RegExp(`^${prefix}(\\d+)[-x]`).exec(name)?.[1];
    return pid !== undefined && doomed(Number(pid));
  };
  const namespaces = list(NAMESPACES).filter(belongs(PREFIX));
  const links = list("/sys/class/net").filter(belongs(LINK_PREFIX));
  const folders = list(tmpdir()).filter(belongs(PREFIX));
  for (const name of namespaces) removeByName(name);
  // The kernel removes namespaces some time later, and only then the cables that end in them.
  for (const link of links) attempt(["ip", "link", "delete", link]);
  for (const folder of folders) rmSync(join(tmpdir(), folder), { recursive: true, force: true });
  return [...namespaces, ...links, ...folders];
}

function removeByName(name: string): void {
  for (let round = 0; round < KILL_ROUNDS_MAX; round++) {
    const { stdout } = attempt(["ip", "netns", "pids", name]);
    const pids = stdout.split("\n").filter((line) => line !== "");
    if (pids.length === 0) break;
    for (const pid of pids) {
      try {
        process.kill(Number(pid), "SIGKILL");
      } catch {} // ended by itself
    }
    Bun.sleepSync(KILL_WAIT_MS);
  }
  attempt(["ip", "netns", "delete", name]);
}

/** Whether there is a process of this id; one that ended and whose parent has not asked for its code counts as gone (proc_pid_stat(5)). */
function lives(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // no namespace was ever made here
  }
}

/** Runs a command to its end, whatever comes of it. */
export function attempt(command: readonly string[], input = "") {
  const { success, stdout, stderr } = Bun.spawnSync([...command], {
    stdin: Buffer.from(input),
    stdout: "pipe",
    stderr: "pipe",
  });
  return { success, stdout: stdout.toString(), stderr: stderr.toString() };
}

function must(command: readonly string[], input = ""): string {
  const { success, stdout, stderr } = attempt(command, input);
  if (!success) throw new Error(`${command.join(" ")}: ${stderr.trim()}\n${input}`.trim());
  return stdout;
}
