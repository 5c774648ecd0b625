/**
 * Network namespaces that go away again: ip-netns(8) and veth(4), with names that tell which
 * process they belong to.
 *
 * Everything here is called after its owner, this process: namespaces pilot-rig-<pid>-<label>,
 * interfaces in the root namespace pr<pid>…, folders pilot-rig-<pid>-…. What this process made is
 * removed when it ends; what a process left that was killed, by removeLeftovers() of any later one.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PREFIX = "pilot-rig-";
/**
 * An interface's name has 15 characters at most (IFNAMSIZ of linux/if.h, less the zero), so its
 * prefix is short.
 */
const LINK_PREFIX = "pr";
/** Where ip keeps a file for each namespace. */
const NAMESPACES = "/run/netns";
/**
 * Rounds of killing what lives in a namespace: something killed may have started something just
 * before.
 */
const KILL_ROUNDS_MAX = 50;
const KILL_WAIT_MS = 10;
/** What Ethernet carries. */
export const MTU_DEFAULT = 1500;

export class Namespace {
  private constructor(readonly name: string) {}

  /**
   * A new namespace with its loopback interface up.
   * @param label unique in this process, of letters, digits and dashes
   */
  static create(label: string): Namespace {
    const [namespace] = Namespace.createAll([label]);
    namespace!.ip("link set lo up");
    return namespace!;
  }

  /**
   * Several in one go, with nothing up yet: starting a program for each step is what takes the
   * time.
   */
  static createAll(labels: readonly string[]): Namespace[] {
    removeAtExit();
    const all = labels.map((label) => new Namespace(`${PREFIX}${process.pid}-${label}`));
    ip(undefined, ...all.map(({ name }) => `netns add ${name}`));
    return all;
  }

  /** The command line that runs `command` in here. */
  exec(...command: string[]): string[] {
    return ["ip", "netns", "exec", this.name, ...command];
  }

  /**
   * Runs a short command in here to its end.
   * @returns its standard output
   * @throws Error, with what it said, if it fails
   */
  run(command: readonly string[], input = ""): string {
    return must(this.exec(...command), input);
  }

  /**
   * Runs lines of ip's own language (ip-link(8), ip-address(8), ip-route(8)) in here, in one call.
   */
  ip(...lines: string[]): void {
    ip(this, ...lines);
  }

  /** Sets kernel parameters of this namespace, by their names below /proc/sys with dots. */
  sysctl(settings: Readonly<Record<string, string | number>>): void {
    const assignments = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
    if (assignments.length > 0) this.run(["sysctl", "-q", "-w", ...assignments]);
  }

  /** Ends every process in here, and removes the namespace with its interfaces. */
  remove(): void {
    removeByName([this.name]);
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
  addCables([[one, other]], mtu);
  for (const end of [one, other]) ip(end.namespace, ...switchOn(end));
}

/** Lays cables, and leaves them switched off. */
export function addCables(
  cables: readonly (readonly [LinkEnd, LinkEnd])[],
  mtu = MTU_DEFAULT,
): void {
  // A namespace can be named by a process in it; this one is in the root namespace.
  const end = ({ link, namespace }: LinkEnd) =>
    `${link} netns ${namespace?.name ?? process.pid} mtu ${mtu}`;
  const line = (one: LinkEnd, other: LinkEnd) =>
    `link add ${end(one)} type veth peer name ${end(other)}`;
  ip(undefined, ...cables.map((ends) => line(...ends)));
}

/**
 * Lines for ip that give an interface its addresses and bring it up. IPv6 addresses serve at once:
 * nobody else has them.
 */
export function switchOn({ link, addresses = [] }: Omit<LinkEnd, "namespace">): string[] {
  const add = (address: string) =>
    `address add ${address} dev ${link}${address.includes(":") ? " nodad" : ""}`;
  return [...addresses.map(add), `link set ${link} up`];
}

/** A folder for files of this run, which goes away like its namespaces. */
export function scratchFolder(): string {
  removeAtExit();
  return mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`));
}

let removesAtExit = false;

function removeAtExit(): void {
  if (!removesAtExit) process.on("exit", () => removeAll((pid) => pid === process.pid));
  removesAtExit = true;
}

/**
 * Removes what runs have left whose process has ended, and everything that still runs in it.
 * @returns names of what was removed
 */
export function removeLeftovers(): string[] {
  return removeAll((pid) => !lives(pid));
}

function removeAll(doomed: (pid: number) => boolean): string[] {
  const belongs = (prefix: string) => (name: string) => {
    const pid = new RegExp(`^${prefix}(\\d+)[-x]`).exec(name)?.[1];
    return pid !== undefined && doomed(Number(pid));
  };
  const namespaces = list(NAMESPACES).filter(belongs(PREFIX));
  const links = list("/sys/class/net").filter(belongs(LINK_PREFIX));
  const folders = list(tmpdir()).filter(belongs(PREFIX));
  removeByName(namespaces);
  // The kernel removes namespaces some time later, and only then the cables that end in them.
  for (const link of links) attempt(["ip", "link", "delete", link]);
  for (const folder of folders) rmSync(join(tmpdir(), folder), { recursive: true, force: true });
  return [...namespaces, ...links, ...folders];
}

function removeByName(names: readonly string[]): void {
  for (let round = 0; round < KILL_ROUNDS_MAX; round++) {
    const pids = inside(names);
    if (pids.length === 0) break;
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {} // ended by itself
    }
    Bun.sleepSync(KILL_WAIT_MS);
  }
  // What is gone already is no reason to leave the others.
  attempt(["ip", "-force", "-batch", "-"], names.map((name) => `netns delete ${name}\n`).join(""));
}

/** The processes in these namespaces (namespaces(7): the same inode). */
function inside(names: readonly string[]): number[] {
  const inodes = new Set(names.flatMap((name) => inodeOf(join(NAMESPACES, name))));
  if (inodes.size === 0) return [];
  const pids = list("/proc").filter((name) => /^\d+$/.test(name));
  return pids
    .filter((pid) => inodeOf(`/proc/${pid}/ns/net`).some((inode) => inodes.has(inode)))
    .map(Number);
}

/** None if there is no such file. */
function inodeOf(path: string): number[] {
  try {
    return [statSync(path).ino];
  } catch {
    return [];
  }
}

/**
 * Whether there is a process of this id; one that ended and whose parent has not asked for its code
 * counts as gone (proc_pid_stat(5)).
 */
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

/** Runs lines of ip's language in a namespace, or outside of all. */
function ip(namespace: Namespace | undefined, ...lines: readonly string[]): void {
  const place = namespace === undefined ? [] : ["-n", namespace.name];
  if (lines.length > 0) must(["ip", ...place, "-batch", "-"], `${lines.join("\n")}\n`);
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
