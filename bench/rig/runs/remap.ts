/**
 * A node whose NAT gives it another mapping in mid-stream: relays to it arrive again after its next
 * Discover or PunchRequest.
 */
import { monotonicUs } from "../../../ffi/libc.ts";
import { RigBeacon } from "../beacon.ts";
import { type Disturbed, disturb, joinAt } from "../meeting.ts";
import { FULL_CONE, SYMMETRIC } from "../nat.ts";
import { showMs } from "../report.ts";
import type { Run } from "../run.ts";
import { Internet } from "../topology.ts";

/** From the change to the node's next message to the beacon: daemons take up to a minute. */
const UNAWARE_MS = 2000;
const UNAWARE_MS_SMOKE = 300;
/** What a machine that does other things, too, may add. */
const HEALED_MS_MAX = 1000;

const CHANGES = [
  { title: "another port, then a Discover", box: "symmetric", host: "one", by: "discover" },
  { title: "another port, then a PunchRequest", box: "symmetric", host: "two", by: "punch" },
  { title: "another address, then a Discover", box: "cone", host: "three", by: "discover" },
] as const;

interface Remapped extends Disturbed {
  readonly title: string;
  /** From the node's message to the beacon to the first relay that arrives again. */
  readonly healedMs: number;
}

async function all(unawareMs: number): Promise<Remapped[]> {
  const internet = await Internet.build({
    boxes: { symmetric: { nat: SYMMETRIC }, cone: { nat: FULL_CONE } },
    hosts: {
      beacon: {},
      sender: {},
      one: { behind: "symmetric" },
      two: { behind: "symmetric" },
      three: { behind: "cone" },
    },
  });
  // Without the hold, under which a node whose address changes waits for longer than any of the
  // changes here lasts.
  await RigBeacon.start(internet.site("beacon").namespace, ["--endpoint-hold=0s"]);
  const results: Remapped[] = [];
  for (const { title, box, host, by } of CHANGES) {
    const [[sender], [node]] = [await joinAt(internet, "sender"), await joinAt(internet, host)];
    if (sender === undefined || node === undefined) throw new Error("nobody joined");
    let told = 0;
    const result = await disturb(sender, node, async () => {
      if (box === "cone") internet.renumber(box);
      else internet.forgetMappings(box);
      await Bun.sleep(unawareMs);
      told = monotonicUs();
      await (by === "punch" ? node.call("requestPunch", sender.id) : node.call("refresh"));
    });
    const { atUs } = await node.call("arrivals", sender.id);
    const healedUs = atUs.find((us) => us >= told) ?? Number.POSITIVE_INFINITY;
    results.push({ ...result, title, healedMs: (healedUs - told) / 1000 });
  }
  return results;
}

export const REMAP_RUN: Run = {
  name: "remap",
  description: "a node whose NAT mapping changes in mid-stream",
  needs: ["nft", "conntrack"],
  async run(report, { smoke }) {
    const unawareMs = smoke ? UNAWARE_MS_SMOKE : UNAWARE_MS;
    const results = await all(unawareMs);
    report.table(
      `Relays every 5 ms; the mapping changes, and ${unawareMs} ms later the node tells the beacon`,
      [
        ["change", "sent", "longest gap", "lost in it", "lost elsewhere", "arriving again after"],
        ...results.map(({ title, sent, gapMs, lost, lostElsewhere, healedMs }) => [
          title,
          String(sent),
          showMs(gapMs),
          String(lost - lostElsewhere),
          String(lostElsewhere),
          showMs(healedMs),
        ]),
      ],
    );
    for (const { title, gapMs, lostElsewhere, healedMs } of results) {
      report.expect(`${title}: ${lostElsewhere} lost outside of the gap`, lostElsewhere === 0);
      report.expect(
        `${title}: a gap of ${showMs(gapMs)}, without a change?`,
        gapMs >= unawareMs / 2,
      );
      report.expect(
        `${title}: arriving again after ${showMs(healedMs)}`,
        healedMs <= HEALED_MS_MAX,
      );
    }
    report.keep("changes", results);
  },
};
