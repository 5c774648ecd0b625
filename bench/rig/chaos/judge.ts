/**
 * Whether what must hold did hold: delivery to those whom no fault concerned, and how soon the
 * others were back. Pure.
 */
import { quantile } from "../../harness/statistics.ts";

/** Of one pair, by the packet's number. All times are in milliseconds from the start of the run. */
export interface Deliveries {
  readonly title: string;
  readonly sentMs: readonly number[];
  /** NaN for what never arrived. */
  readonly arrivedMs: readonly number[];
}

/** A fault that happened. */
export interface Happened {
  readonly name: string;
  readonly beganMs: number;
  /**
   * When it was taken away; what it left behind may need others to be over, too (see `heldUpBy` of
   * Fault).
   */
  readonly endedMs: number;
  /**
   * Numbers of pairs that it may disturb, from its beginning until `backWithinMs` after its end.
   */
  readonly concerned: readonly number[];
  readonly backWithinMs: number;
  /** From its end until what it touched was well again; undefined if that was not seen in time. */
  readonly wellAfterMs: number | undefined;
  /** What names it, in the beacon's log or its numbers; undefined if nothing does. */
  readonly trace: string | undefined;
}

export interface PairVerdict {
  readonly title: string;
  /** Seconds in which no fault concerned it and it sent something. */
  readonly seconds: number;
  /** Of these, seconds of which nothing arrived. */
  readonly silentSeconds: number;
  /** Packets sent in these seconds. */
  readonly sent: number;
  readonly delivered: number;
  /** The longest time without an arrival among them. */
  readonly gapMs: number;
  /** Of the whole run. */
  readonly sentInAll: number;
  readonly deliveredInAll: number;
}

export interface FaultVerdict {
  readonly name: string;
  readonly times: number;
  /** While it lasted, of pairs that neither it nor another fault concerned. */
  readonly sent: number;
  readonly delivered: number;
  readonly gapMs: number;
  /** From its end until all was well, of the times when that can be told from other faults. */
  readonly backAfterMs: { readonly median: number; readonly max: number } | undefined;
  /** Times when nothing in a log or a number named it. */
  readonly untraced: number;
  /** Times when what it touched was not well in time. */
  readonly unwell: number;
  /** One of its traces. */
  readonly trace: string;
}

const WINDOW_MS = 1000;
/** A packet may be on its way when a fault begins. */
const LEAD_MS = 100;

type Interval = readonly [fromMs: number, toMs: number];

/** When a pair may be disturbed. */
function excuses(pair: number, happened: readonly Happened[]): Interval[] {
  return happened
    .filter(({ concerned }) => concerned.includes(pair))
    .map((one): Interval => [one.beganMs - LEAD_MS, one.endedMs + one.backWithinMs]);
}

const overlaps = (one: Interval, [fromMs, toMs]: Interval) => one[0] < toMs && fromMs < one[1];

/** Numbers of packets sent in seconds that nothing excuses, one list a second. */
function judgedSeconds({ sentMs }: Deliveries, excused: readonly Interval[]): number[][] {
  const seconds = Map.groupBy(sentMs.keys(), (number) => Math.floor(sentMs[number]! / WINDOW_MS));
  return [...seconds].flatMap(([second, numbers]) => {
    const window: Interval = [second * WINDOW_MS, (second + 1) * WINDOW_MS];
    return excused.some((one) => overlaps(one, window)) ? [] : [numbers];
  });
}

/**
 * What became of some packets; those whose numbers follow each other are a stretch, and gaps are
 * looked for within stretches.
 */
function account({ sentMs, arrivedMs }: Deliveries, numbers: readonly number[]) {
  let [delivered, gapMs, lastMs] = [0, 0, Number.NaN];
  for (const [i, number] of numbers.entries()) {
    const follows = i > 0 && numbers[i - 1] === number - 1;
    if (!follows) lastMs = sentMs[number]!;
    const atMs = arrivedMs[number]!;
    // What is lost at a stretch's end leaves a gap too, up to when the last was sent.
    gapMs = Math.max(gapMs, (Number.isNaN(atMs) ? sentMs[number]! : atMs) - lastMs);
    if (Number.isNaN(atMs)) continue;
    delivered++;
    lastMs = atMs;
  }
  return { sent: numbers.length, delivered, gapMs };
}

export function judgePairs(
  all: readonly Deliveries[],
  happened: readonly Happened[],
): PairVerdict[] {
  return all.map((pair, i) => {
    const seconds = judgedSeconds(pair, excuses(i, happened));
    const arrived = (number: number) => !Number.isNaN(pair.arrivedMs[number]);
    return {
      title: pair.title,
      seconds: seconds.length,
      silentSeconds: seconds.filter((numbers) => !numbers.some(arrived)).length,
      ...account(pair, seconds.flat()),
      sentInAll: pair.sentMs.length,
      deliveredInAll: pair.sentMs.filter((_, number) => arrived(number)).length,
    };
  });
}

export function judgeFaults(
  names: readonly string[],
  all: readonly Deliveries[],
  happened: readonly Happened[],
): FaultVerdict[] {
  const judged = all.map((pair, i) => judgedSeconds(pair, excuses(i, happened)).flat());
  return names.map((name) => {
    const times = happened.filter((one) => one.name === name);
    const beside = times.flatMap(({ beganMs, endedMs, concerned }) =>
      all.flatMap((pair, i) => {
        if (concerned.includes(i)) return [];
        const isMeanwhile = (number: number) =>
          pair.sentMs[number]! >= beganMs && pair.sentMs[number]! <= endedMs;
        return [account(pair, judged[i]!.filter(isMeanwhile))];
      }),
    );
    const backAfterMs = times.flatMap((one) => backAfter(one, all, happened));
    return {
      name,
      times: times.length,
      sent: beside.reduce((sum, { sent }) => sum + sent, 0),
      delivered: beside.reduce((sum, { delivered }) => sum + delivered, 0),
      gapMs: Math.max(0, ...beside.map(({ gapMs }) => gapMs)),
      backAfterMs:
        backAfterMs.length === 0
          ? undefined
          : { median: quantile(backAfterMs, 0.5), max: Math.max(...backAfterMs) },
      untraced: times.filter(({ trace }) => trace === undefined).length,
      unwell: times.filter(({ wellAfterMs }) => wellAfterMs === undefined).length,
      trace: times.find(({ trace }) => trace !== undefined)?.trace ?? "",
    };
  });
}

/**
 * How long after a fault's end all was well that it touched; nothing if that cannot be told, since
 * another fault was in the way.
 */
function backAfter(
  fault: Happened,
  all: readonly Deliveries[],
  happened: readonly Happened[],
): number[] {
  const { endedMs, backWithinMs, wellAfterMs, concerned } = fault;
  if (wellAfterMs === undefined) return [];
  const others = happened.filter((one) => one !== fault);
  const back = concerned.map((pair) => {
    if (excuses(pair, others).some((one) => overlaps(one, [endedMs, endedMs + backWithinMs])))
      return 0;
    const { sentMs, arrivedMs } = all[pair]!;
    const first = sentMs.findIndex(
      (atMs, number) => atMs >= endedMs && !Number.isNaN(arrivedMs[number]),
    );
    return first < 0 ? Number.POSITIVE_INFINITY : arrivedMs[first]! - endedMs;
  });
  return [Math.max(wellAfterMs, ...back)];
}
