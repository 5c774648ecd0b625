/** `check-config --as-service`: the check as a systemd service's user and mounts. */
import { readFileSync } from "node:fs";
import { EXIT_USAGE } from "./console.ts";

/** Why a command cannot run as the service. The message says what to do. */
export class ServiceError extends Error {
  override readonly name = "ServiceError";
}

/**
 * Runs this program again as the service's main process would: as its user and group, with its
 * mounts (credentials, private directories) and its environment. Needs root.
 * @param unit a systemd service that runs
 * @returns the exit code
 * @throws ServiceError
 */
export async function runAsService(unit: string, args: readonly string[]): Promise<number> {
  const { pid, user, group, env } = await mainProcess(unit);
  const program = Bun.main.startsWith("/$bunfs/")
    ? [process.execPath]
    : [process.execPath, ...process.execArgv, Bun.main];
  const nsenter = Bun.which("nsenter"); // by this process's PATH, not the service's
  if (nsenter === null) throw new ServiceError("--as-service needs nsenter: install util-linux");
  const enter = [
    nsenter,
    `--target=${pid}`,
    "--mount",
    `--setuid=${user}`,
    `--setgid=${group}`,
    "--",
  ];
  const child = Bun.spawn([...enter, ...program, ...args], {
    stdio: ["ignore", "inherit", "inherit"],
    env,
  });
  return (await child.exited) ?? EXIT_USAGE;
}

interface MainProcess {
  readonly pid: number;
  readonly user: string;
  readonly group: string;
  readonly env: Record<string, string>;
}

async function mainProcess(unit: string): Promise<MainProcess> {
  const pid = await mainPid(unit);
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    // Real, effective, saved, of the file system: the second decides which files may be read.
    const effective = (name: string) =>
      new RegExp(`^${name}:\\t\\d+\\t(\\d+)`, "m").exec(status)![1]!;
    const variables = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0").filter(Boolean);
    const env = Object.fromEntries(
      variables.map((variable) => [
        variable.slice(0, variable.indexOf("=")),
        variable.slice(variable.indexOf("=") + 1),
      ]),
    );
    return { pid, user: effective("Uid"), group: effective("Gid"), env };
  } catch (error) {
    const { code = "unknown error" } = error as NodeJS.ErrnoException;
    throw new ServiceError(
      `--as-service ${unit}: process ${pid} cannot be read (${code}): run this as root`,
    );
  }
}

async function mainPid(unit: string): Promise<number> {
  let shown: string;
  try {
    // "--": a unit's name is no option.
    const command = ["systemctl", "show", "--property=MainPID", "--value", "--", unit];
    shown = await new Response(Bun.spawn(command, { stderr: "ignore" }).stdout).text();
  } catch {
    throw new ServiceError(`--as-service ${unit}: there is no systemctl here`);
  }
  const pid = Number(shown.trim());
  if (!(pid > 0))
    throw new ServiceError(`--as-service ${unit}: the service does not run: start it first`);
  return pid;
}
