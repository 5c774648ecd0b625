/** A process that can open no more files. */
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { until } from "./wait.ts";

const WAITING = 20;

/**
 * Lets a process open no file beyond the highest that it has (prlimit(1)), and takes what is free below by connections to it.
 * @param port of a TCP server of that process, on `host`
 * @returns what gives it room again
 */
export async function exhaustFiles(pid: number, host: string, port: number): Promise<() => void> {
  const open = () => readdirSync(`/proc/${pid}/fd`).map(Number);
  const limits = readFileSync(`/proc/${pid}/limits`, "utf8");
  const before = /^Max open files +(\d+)/m.exec(limits)![1]!;
  const max = Math.max(...open()) + 1;
  allow(pid, max);
  // More than it has room for: those that wait take what it closes meanwhile.
  const sockets = Array.from({ length: max - open().length + WAITING }, () =>
    connect({ host, port }).on("error", () => {}),
  );
  await until("it has no file left", () => open().length >= max);
  return () => {
    allow(pid, before);
    for (const socket of sockets) socket.destroy();
  };
}

function allow(pid: number, files: number | string): void {
  const { success, stderr } = Bun.spawnSync(["prlimit", "--pid", String(pid), `--nofile=${files}:`], {
    stderr: "pipe",
  });
  if (!success) throw new Error(`prlimit: ${stderr}`);
}
