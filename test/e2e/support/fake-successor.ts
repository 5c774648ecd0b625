/**
 * A process that is to take over and does not: it goes along with an upgrade up to the step that
 * its argument names, and fails there.
 */
import { existsSync, writeFileSync } from "node:fs";
import { UnixChannel } from "../../../ffi/unix-channel.ts";
import { Channel, type Kind } from "../../../src/control/hand-over/channel.ts";

/**
 * The second argument of some steps: a path, beside which files appear that say how far it is, and
 * how far it may go.
 */
const [step = "", path = ""] = process.argv.slice(2);
const channel = new Channel(new UnixChannel(Number(process.env["BEACON_UPGRADE_FD"])));

function fail(): void {
  process.kill(process.pid, "SIGKILL");
}

/** Messages received, and steps done. */
const kinds: string[] = [];

async function follow(last: Kind): Promise<void> {
  for (;;) {
    const message = await channel.receive();
    if (message === undefined) throw new Error("the old process is dead");
    kinds.push(message.kind);
    if (message.kind === "sync") {
      if (step === "dies when asked whether it has all") fail();
      await channel.send("synced");
    }
    if (message.kind === last) return;
  }
}

if (step === "dies at once") fail();
if (step === "exits") process.exit(3);
if (step === "says nothing") await Bun.sleep(600_000);
await channel.receive();
if (step === "dies with the sockets") fail();
if (step === "refuses") {
  await channel.sendJson("refused", { reason: "it is Monday" });
  process.exit(1);
}
await follow("prepare");
if (step === "says what is not its turn") {
  await channel.send("serving");
  await Bun.sleep(600_000);
}
if (step === "looks on") {
  writeFileSync(`${path}.has-nodes`, "");
  while (!existsSync(`${path}.go-on`)) await Bun.sleep(10);
  await channel.sendJson("prepared", { version: "fake" });
  await follow("go");
  writeFileSync(`${path}.has-all`, "");
  while (!existsSync(`${path}.give-up`)) await Bun.sleep(10);
  await channel.sendJson("refused", { reason: kinds.join(" ") });
  process.exit(1);
}
await channel.sendJson(
  "prepared",
  step === "says what is no format" ? { version: 7 } : { version: "fake" },
);
if (step === "dies when it is prepared") fail();
await follow("go");
if (step === "dies when it is to serve") fail();
if (step === "refuses when it is to serve")
  await channel.sendJson("refused", { reason: "the port is taken" });
if (step === "dies when it serves") {
  await channel.send("serving");
  await follow("commit");
  fail();
}
await Bun.sleep(600_000);
