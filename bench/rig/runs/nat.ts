/** Hole punching through the beacon, between all kinds of NATs, against what theory says. */
import { BEACON_PORT, RigBeacon } from "../beacon.ts";
import type { Behaviour } from "../nat.ts";
import { type Circumstances, type Outcome, predict } from "../nat-theory.ts";
import { bringTogether, type Corner, join, tryPair } from "../pair.ts";
import { NodeHost } from "../remote.ts";
import type { Report } from "../report.ts";
import type { Run } from "../run.ts";
import { Internet } from "../topology.ts";
import {
  ASKER,
  ASKER_AND_SLEEPER,
  type Case,
  FORGETFUL,
  KINDS,
  KINDS_IPV6,
  MATRIX,
  MATRIX_IPV6,
  NAT_INTERNET,
  NEIGHBOURS,
  SLEEPER,
} from "./nat-cases.ts";

/** How many pairs are at it at a time: those that fail wait, and need no processor for it. */
const AT_A_TIME = 12;
/** Well beyond the timeout, which the kernel counts in ticks. */
const SILENCE_MS = FORGETFUL.timeoutS * 1000 + 1000;
const REFRESH_EVERY_MS = 400;

class Corners {
  readonly #hosts = new Map<string, NodeHost>();

  constructor(private readonly internet: Internet) {}

  /** Where a host is, with a process for its nodes. */
  of(name: string, family: 4 | 6 = 4): Corner {
    const [site, beacon] = [this.internet.site(name), this.internet.site("beacon")];
    const host = this.#hosts.get(name) ?? new NodeHost(site.namespace);
    this.#hosts.set(name, host);
    return family === 4
      ? { host, address: site.ipv4, beacon: { address: beacon.ipv4, port: BEACON_PORT } }
      : { host, address: site.ipv6, beacon: { address: beacon.ipv6, port: BEACON_PORT } };
  }
}

/**
 * What becomes of a target whose mapping is kept, of one whose mapping expires before the punch,
 * and of that one later.
 */
async function shortTimeouts(
  corners: Corners,
): Promise<[fresh: Outcome, expired: Outcome, again: Outcome]> {
  const both = () => Promise.all([join(corners.of(ASKER)), join(corners.of(SLEEPER))]);
  const kept = async () => {
    const [asker, sleeper] = await both();
    await sleeper.call("refreshFor", SILENCE_MS, REFRESH_EVERY_MS);
    return bringTogether(asker, sleeper);
  };
  const silent = async () => {
    const [asker, sleeper] = await both();
    await Bun.sleep(SILENCE_MS);
    const expired = await bringTogether(asker, sleeper);
    await sleeper.call("discover");
    return [expired, await bringTogether(asker, sleeper)] as const;
  };
  const [fresh, [expired, again]] = await Promise.all([kept(), silent()]);
  return [fresh, expired, again];
}

/** Does something with all, some at a time. */
async function inTurns<T, R>(all: readonly T[], act: (one: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const turn = async () => {
    while (next < all.length) {
      const at = next++;
      results[at] = await act(all[at]!);
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, turn));
  return results;
}

/** Outcomes row by row, with what the rows and columns are. */
function square(
  kinds: readonly { readonly title: string }[],
  outcomes: readonly Outcome[],
): string[][] {
  const titles = kinds.map(({ title }) => title);
  const rows = titles.map((title, i) => [
    title,
    ...outcomes.slice(i * titles.length, (i + 1) * titles.length),
  ]);
  return [["", ...titles], ...rows];
}

async function run(report: Report): Promise<void> {
  const internet = await Internet.build(NAT_INTERNET);
  await RigBeacon.start(internet.site("beacon").namespace);
  const corners = new Corners(internet);
  const cases = [...MATRIX, ...MATRIX_IPV6, ...NEIGHBOURS];
  const [outcomes, [fresh, expired, again]] = await Promise.all([
    inTurns(cases, ({ ends: [asks, asked], family }: Case) =>
      tryPair(corners.of(asks, family), corners.of(asked, family)),
    ),
    shortTimeouts(corners),
  ]);

  const outcomesOf = (part: readonly Case[]) => part.map((one) => outcomes[cases.indexOf(one)]!);
  report.table(
    "IPv4: who asks is on the left, who is asked for is above",
    square(KINDS, outcomesOf(MATRIX)),
  );
  report.table("IPv6, without NAT", square(KINDS_IPV6, outcomesOf(MATRIX_IPV6)));
  const neighbours = outcomesOf(NEIGHBOURS);
  report.table(
    "Both behind one NAT",
    NEIGHBOURS.map(({ title }, i) => [title, neighbours[i]!]),
  );
  report.table(`The NAT of who is asked for forgets after ${FORGETFUL.timeoutS} s`, [
    [`registered every ${REFRESH_EVERY_MS} ms`, fresh],
    [`silent for ${SILENCE_MS} ms`, expired],
    ["registered once more", again],
  ]);

  const compare = (
    title: string,
    outcome: Outcome,
    [asks, asked]: readonly [Behaviour, Behaviour],
    circumstances?: Circumstances,
  ) => {
    const predicted = predict(asks, asked, circumstances);
    report.expect(`${title}: ${outcome}; theory says ${predicted}`, outcome === predicted);
    return { title, outcome, predicted };
  };
  report.keep("pairs", [
    ...cases.map((one, i) => compare(one.title, outcomes[i]!, one.behaviours, one.circumstances)),
    compare("a mapping that is kept", fresh, ASKER_AND_SLEEPER),
    compare("a mapping that has expired", expired, ASKER_AND_SLEEPER, { targetExpired: true }),
    compare("a mapping that is new again", again, ASKER_AND_SLEEPER),
  ]);
}

export const NAT_RUN: Run = {
  name: "nat",
  description: "hole punching between all kinds of NATs, against theory",
  needs: ["nft"],
  run,
};
