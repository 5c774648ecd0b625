/** The clock of a directory's server steps while nodes move between three beacons. */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { nodesOf } from "../../bench/harness/fleet.ts";
import { FleetNodes } from "../../bench/harness/fleet-nodes.ts";
import { lookUpAll } from "../../bench/harness/lookups.ts";
import { Moves } from "../../bench/harness/moves.ts";
import { MovableClock } from "../../bench/rig/chaos/clock.ts";
import { temporaryFolder } from "../support/folder.ts";
import { describeImplementations, RedisServers } from "../support/redis.ts";
import { Fleet, type FleetBeacon, untilReached } from "./support/directory.ts";
import { installed } from "./support/program.ts";
import { TEST_TIMEOUT_MS, until, untilEqual } from "./support/wait.ts";

setDefaultTimeout(2 * TEST_TIMEOUT_MS);

const SHAPE = { beacons: 3, nodesEach: 100 };
const MOVES_PER_S = 150;
/** Moves before the step, between the steps, and after the step back. */
const [BEFORE_S, STEP_S, AFTER_S] = [2, 10, 3];
/** Beacons that disagree claim again within a second, again and again. */
const STILL_MS = 3000;

const needs = installed("cc") ? "" : " (needs cc)";
const folder = temporaryFolder();

describeImplementations((implementation) => {
  const open: { close(): unknown }[] = [];
  const servers = new RedisServers(implementation);
  afterEach(async () => {
    for (const one of open.splice(0)) await one.close();
    await servers.stop();
  });

  async function start(clock: MovableClock) {
    const server = await servers.start({ env: clock.env });
    const fleet = new Fleet({ directory: `redis://${server.name}` });
    open.push(fleet);
    const beacons = await fleet.startAll(SHAPE.beacons);
    const targets = beacons.map(({ at: { address, port } }) => ({ host: address, port }));
    const nodes = new FleetNodes({ targets, shape: SHAPE });
    open.unshift(nodes);
    nodes.registerAll();
    return { beacons, nodes, moves: new Moves(nodes, SHAPE) };
  }

  const routesOf = (beacon: FleetBeacon): number =>
    beacon.directory.beacons.reduce((sum, { routes }) => sum + routes, 0);
  const reclaimsOf = (beacons: readonly FleetBeacon[]): number =>
    beacons.reduce((sum, { directory }) => sum + directory.nodesClaimedAgain, 0);

  for (const [title, offsetS] of [
    ["an hour ahead", 3600],
    ["five minutes behind", -300],
  ] as const) {
    test.skipIf(needs !== "")(
      `all beacons agree on all nodes, and reclaims end, once a clock ${title} steps back${needs}`,
      async () => {
        const clock = MovableClock.make(mkdtempSync(join(folder, "clock-")))!;
        const { beacons, nodes, moves } = await start(clock);
        for (const beacon of beacons)
          await untilEqual("nodes known", () => beacon.nodes + routesOf(beacon), nodesOf(SHAPE));

        const moving = moves.run(BEFORE_S + STEP_S + AFTER_S, MOVES_PER_S, true);
        await Bun.sleep(BEFORE_S * 1000);
        clock.move(offsetS);
        await Bun.sleep(STEP_S * 1000);
        clock.move(0);
        await moving;
        expect(moves.moved).toBeGreaterThan(nodesOf(SHAPE));

        let wrong = -1;
        const allFound = async () => {
          ({ wrong } = await lookUpAll(nodes, moves, SHAPE));
          return wrong === 0;
        };
        await until("every beacon finds every node", allFound).catch((error: Error) => {
          throw new Error(`${error.message}: ${wrong} lookups are wrong`);
        });
        await until("reclaims stand still", async () => {
          const before = reclaimsOf(beacons);
          await Bun.sleep(STILL_MS);
          return reclaimsOf(beacons) === before;
        });
        expect(await lookUpAll(nodes, moves, SHAPE)).toMatchObject({ wrong: 0, nodesWrong: 0 });
        for (const beacon of beacons) {
          expect(beacon.nodes + routesOf(beacon)).toBe(nodesOf(SHAPE));
          expect(beacon.directory.state).toBe("ok");
        }
      },
    );
  }

  for (const [title, days] of [
    ["ahead", 31],
    ["behind", -31],
  ] as const) {
    test.skipIf(needs !== "")(
      `a beacon that starts follows a fleet that began while the server's clock was 31 days ${title}${needs}`,
      async () => {
        const clock = MovableClock.make(mkdtempSync(join(folder, "clock-")))!;
        clock.move(days * 86_400);
        const server = await servers.start({ env: clock.env });
        const fleet = new Fleet({ directory: `redis://${server.name}` });
        open.push(fleet);
        const [first] = await fleet.startAll(2);
        const node = await first!.udp();
        clock.move(0);
        const late = await fleet.start();
        await fleet.untilWhole();
        await untilReached(late, node);
        await untilReached(first!, await late.udp());
        for (const { directory } of fleet.beacons)
          expect(directory).toMatchObject({ state: "ok", entriesMalformed: 0 });
        expect(late.warnings(/days off its server's clock/)).toHaveLength(1);
      },
    );
  }
});
