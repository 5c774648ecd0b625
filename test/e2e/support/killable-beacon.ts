/**
 * The beacon as operators start it, but for one thing: a line "kill <n>" on its standard input
 * kills worker n as a crash would. Nothing outside of a process can end one thread of it.
 */
import { Supervisor } from "../../../src/control/workers/supervisor.ts";

const { start } = Supervisor.prototype;
Supervisor.prototype.start = async function () {
  process.stdin.on("data", (chunk: Buffer) => {
    for (const [, worker] of chunk.toString().matchAll(/^kill (\d+)$/gm)) this.kill(Number(worker));
  });
  return start.call(this);
};

await import("../../../src/main.ts");
