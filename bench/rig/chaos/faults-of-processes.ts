/**
 * Faults of beacons' processes: workers and peers that die or stop, a link that is cut, signals,
 * and a clock that jumps.
 */
import { writeFileSync } from "node:fs";
import type { LogLine } from "../../../test/e2e/support/program.ts";
import type { Random } from "../../../test/e2e/support/random.ts";
import type { ChaosBeacon } from "./beacons.ts";
import { type Fault, hasLogged, logs, nothing, type UnderWay } from "./fault.ts";
import { between, nobody, thoseOf, throughWorkers } from "./pairs.ts";
import { command, GOSSIP_MS, PEER_TIMEOUT_MS, type Stage, WORKERS } from "./stage.ts";

/** A thread is started anew within some 100 ms; the rest is for a machine that is busy. */
const WORKER_BACK_MS = 3000;
/**
 * A peer's nodes register within a second, its registry is asked within another, and its gossip
 * comes at the next interval.
 */
const PEER_BACK_MS = 5000;
/** A peer is missed only once its timeout is over, which is looked at every second. */
const MISSED_MS = PEER_TIMEOUT_MS + 1000 + 2 * GOSSIP_MS;

function killWorkers(name: string, choose: (random: Random) => readonly number[]): Fault {
  return {
    name,
    forMs: [0, 0],
    concerns: throughWorkers,
    backWithinMs: WORKER_BACK_MS,
    heldUpBy: ["subject paused", "files exhausted"],
    async begin({ beacons: { subject } }, random) {
      const trace = logs(subject, /^worker died and was replaced$/);
      for (const worker of choose(random)) await subject.killWorker(worker);
      const isWell = async () => {
        const workers = (await subject.stats())?.workers;
        return workers?.every(({ alive }) => alive) === true && (await trace()) !== undefined;
      };
      return { end: nothing, isWell, trace };
    },
  };
}

/** Whether a beacon has routes through the victim, and the victim through it. */
async function isMeshed(one: ChaosBeacon, victim: ChaosBeacon): Promise<boolean> {
  const know = async (from: ChaosBeacon, to: ChaosBeacon) =>
    (await from.stats())?.mesh.peers.some(
      ({ address, routes }) => address === to.peerName && routes > 0,
    );
  return (await know(one, victim)) === true && (await know(victim, one)) === true;
}

/**
 * Something that takes the victim away from the subject for so long that it is missed.
 * @param missing the beacons that miss it, and are to have it again
 */
function peerFault(
  name: string,
  missing: readonly ("subject" | "bystander")[],
  concerns: Fault["concerns"],
  begin: (stage: Stage) => Promise<UnderWay["end"]>,
): Fault {
  return {
    name,
    forMs: [MISSED_MS, 2 * MISSED_MS],
    concerns,
    backWithinMs: PEER_BACK_MS,
    // Who starts anew, or was forgotten, is found through the registry again.
    heldUpBy: [
      "registry killed",
      "registry hanging",
      "registry garbage",
      "subject paused",
      "files exhausted",
    ],
    // What came before waits in the socket, and is heard when it goes on.
    hiddenBy: ["subject paused"],
    async begin(stage) {
      const { subject, victim } = stage.beacons;
      const since = subject.log();
      // A registry that has lost its memory, and hears nothing of the victim, has it removed before
      // its silence is too long.
      const isMissed = ({ msg, peer }: LogLine) =>
        /^peer (went silent|removed)/.test(msg) && peer === victim.peerName;
      const trace = async () => since(isMissed)?.msg;
      const isWell = async () => {
        const meshed = await Promise.all(
          missing.map((name) => isMeshed(stage.beacons[name], victim)),
        );
        return meshed.every(Boolean);
      };
      return { end: await begin(stage), isWell, trace };
    },
  };
}

const PAUSED: Fault = {
  name: "subject paused",
  forMs: [700, 1200],
  concerns: thoseOf("subject"),
  backWithinMs: 3000,
  heldUpBy: ["files exhausted"], // or nobody is told that it is well
  async begin({ beacons: { subject, bystander } }) {
    subject.signal("SIGSTOP");
    let trace: string | undefined;
    const end = async () => {
      // Too short for anybody to complain, and long enough for the others to show it in their
      // numbers.
      const peers = (await bystander.stats())?.mesh.peers;
      const ageMs =
        1000 * (peers?.find(({ address }) => address === subject.peerName)?.gossipAgeS ?? 0);
      if (ageMs > 2 * GOSSIP_MS)
        trace = `the bystander heard its gossip ${Math.round(ageMs)} ms ago`;
      subject.signal("SIGCONT");
    };
    return {
      end,
      isWell: async () => (await subject.stats()) !== undefined,
      trace: async () => trace,
    };
  },
};

/** What does not concern a beacon, but may be sent to it by mistake. */
const STRAY_SIGNALS = ["SIGUSR1", "SIGWINCH", "SIGPIPE", "SIGCONT"] as const;
const STRAY_ROUNDS = 5;
/** How often the configuration is read within one storm. */
const HANG_UPS = 20;
const BETWEEN_SIGNALS_MS = 20;

const STRAY: Fault = {
  name: "stray signals",
  forMs: [0, 0], // beside what its beginning takes
  concerns: nobody,
  backWithinMs: 2000,
  heldUpBy: ["files exhausted"],
  async begin({ beacons: { subject } }) {
    const trace = logs(subject, /SIGUSR1/);
    for (let round = 0; round < STRAY_ROUNDS; round++) {
      for (const signal of STRAY_SIGNALS) subject.signal(signal);
      await Bun.sleep(BETWEEN_SIGNALS_MS);
    }
    return { end: nothing, isWell: async () => (await subject.stats()) !== undefined, trace };
  },
};

const GOOD_CONFIGS = ['{"drain": "1s"}', '{"drain": "2s", "node-ttl": "5m"}'];
const BROKEN_CONFIGS = ["{", '{"drain": "soon"}', '{"no-such-flag": 1}', ""];

const STORM: Fault = {
  name: "SIGHUP storm",
  forMs: [0, 0], // as above
  concerns: nobody,
  backWithinMs: 2000,
  heldUpBy: ["files exhausted"], // it cannot read its configuration then
  async begin({ beacons: { subject }, configFile }, random) {
    const [refused, taken] = [
      logs(subject, /^configuration not reloaded/),
      logs(subject, /^configuration reloaded$/),
    ];
    const texts = [...GOOD_CONFIGS, ...BROKEN_CONFIGS];
    for (let n = 0; n < HANG_UPS; n++) {
      // Broken ones and good ones, each at least once.
      writeFileSync(configFile, texts[n < texts.length ? n : random.below(texts.length)]!);
      subject.signal("SIGHUP");
      await Bun.sleep(BETWEEN_SIGNALS_MS);
    }
    let isTaken = async () => false;
    return {
      async end() {
        writeFileSync(configFile, "{}");
        isTaken = hasLogged(subject, /^configuration reloaded$/);
      },
      async isWell() {
        if (await isTaken()) return true;
        subject.signal("SIGHUP");
        return false;
      },
      trace: async () => (await taken()) && (await refused()),
    };
  },
};

const DAY_S = 24 * 3600;
const JUMPS_S = [-366 * DAY_S, -DAY_S, -3600, 3600, DAY_S, 366 * DAY_S];
/** Less than the least jump, and more than any line is late. */
const SEEN_MS = 1_800_000;

const CLOCK: Fault = {
  name: "clock jump",
  forMs: [2500, 6000],
  concerns: nobody,
  backWithinMs: 4000,
  heldUpBy: ["subject paused"],
  async begin({ beacons: { subject }, clock }, random) {
    const since = subject.log();
    clock!.move(JUMPS_S[random.below(JUMPS_S.length)]!);
    const hasJumped = (text: unknown) => Math.abs(Date.parse(String(text)) - Date.now()) > SEEN_MS;
    let sinceEnd = since;
    return {
      async end() {
        clock!.move(0);
        sinceEnd = subject.log();
      },
      isWell: async () => sinceEnd(({ time }) => !hasJumped(time)) !== undefined,
      async trace() {
        const line = since(({ time }) => hasJumped(time));
        return line && `${line["time"]} ${line.msg.slice(0, 40)}…`;
      },
    };
  },
};

export const WORKER_FAULTS: readonly Fault[] = [
  killWorkers("worker killed", (random) => [random.below(WORKERS)]),
  killWorkers("all workers killed", () => Array.from({ length: WORKERS }, (_, worker) => worker)),
];

const EVERYBODY = ["subject", "bystander"] as const;

export const PEER_FAULTS: readonly Fault[] = [
  peerFault("peer killed", EVERYBODY, thoseOf("victim"), async ({ beacons: { victim } }) => {
    await victim.kill();
    return () => victim.start();
  }),
  peerFault("peer stopped", EVERYBODY, thoseOf("victim"), async ({ beacons: { victim } }) => {
    victim.signal("SIGSTOP");
    return async () => victim.signal("SIGCONT");
  }),
  peerFault(
    "link cut",
    ["subject"],
    between("subject", "victim"),
    async ({ beacons: { subject, victim } }) => {
      const drop = (from: ChaosBeacon, to: ChaosBeacon) =>
        `ip saddr ${from.host} ip daddr ${to.host} udp sport 9001 drop`;
      command("nft", "add table inet cut");
      command("nft", "add chain inet cut arriving { type filter hook input priority raw; }");
      for (const rule of [drop(subject, victim), drop(victim, subject)]) {
        command("nft", `add rule inet cut arriving ${rule}`);
      }
      return async () => command("nft", "delete table inet cut");
    },
  ),
];

/** Not at once: a stray SIGCONT would let the subject go on. */
export const SIGNAL_FAULTS: readonly Fault[] = [STRAY, STORM, PAUSED];
export const CLOCK_FAULTS: readonly Fault[] = [CLOCK];
