/** The commands: names, arguments and options for commander, and what each runs. */
import { Argument, Command, InvalidArgumentError, Option } from "commander";
import packageJson from "../../package.json" with { type: "json" };
import { type CommandName, commands } from "../config/commands.ts";
import { type Access, API_DEFAULT, Api } from "./api.ts";
import { runAsService } from "./as-service.ts";
import { disconnect, drain, upgrade } from "./changes.ts";
import { type Console, EXIT_OK, processConsole } from "./console.ts";
import { explain, type NodesOptions, nodes } from "./nodes.ts";
import { probeCommand } from "./probe/command.ts";
import { PAYLOAD_BYTES_MIN } from "./probe/probe.ts";
import { status } from "./status.ts";
import { top } from "./top/command.ts";

const HELP_COLUMNS = 100;

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** Further exit codes of a command that asks a beacon. */
const EXITS_OF_ASKING =
  "2 wrong usage,\n3 no beacon answers, 4 the admin token is missing or wrong.";

const NODE_ID_MAX = 2 ** 32 - 1;
/** Seconds; longer than any node is remembered. */
const AGE_MAX = 1e9;

const version: string = packageJson.version;

/** What all commands that ask a beacon have in common, as commander gives it. */
interface Asking extends Access {
  readonly json?: true;
}

interface ProbeFlags {
  readonly count: number;
  readonly interval: number;
  readonly size: number;
  readonly timeout: number;
  readonly ipv4?: true;
  readonly ipv6?: true;
  readonly json?: true;
}

/** The program, the console that its commands write to, and the receiver of exit codes. */
interface Adding {
  readonly program: Command;
  readonly out: Console;
  readonly end: (code: number) => void;
}

/** @param out where commands write to @param end gets the exit code of the command that ran */
export function createProgram(
  out: Console = processConsole,
  end: (code: number) => void = () => {},
): Command {
  const program = new Command("beacon")
    .description(
      "Commands beside the server, which `beacon` with flags alone is (see beacon --help).",
    )
    .usage("<command> [options]")
    .enablePositionalOptions()
    .exitOverride()
    .helpCommand("help [command]", commands.help)
    .configureOutput({
      writeOut: (text) => out.raw(text),
      writeErr: () => {}, // main.ts says it in its own way
      getOutHelpWidth: () => HELP_COLUMNS,
      getOutHasColors: () => false,
    });
  const adding = { program, out, end };
  addReading(adding);
  addChanging(adding);
  addSupervise(adding);
  addCheckConfig(adding);
  addProbe(adding);
  addCompletion(adding);
  return program;
}

/** Adds a command with the flag `--json`. */
const add = ({ program }: Adding, name: CommandName): Command =>
  program
    .command(name)
    .description(`${commands[name]}.`)
    .option("--json", "Print JSON, for programs.");

/** Adds a command that asks a beacon. @param yes, no what the exit codes 0 and 1 mean */
const ask = (adding: Adding, name: CommandName, yes = "done", no = "the beacon refused"): Command =>
  add(adding, name)
    .addHelpText("after", `\nExit code: 0 ${yes}, 1 ${no}, ${EXITS_OF_ASKING}`)
    .addOption(
      new Option(
        "--http <host:port|url>",
        `Where the beacon's HTTP is.\n(default: ${API_DEFAULT}; env: BEACON_HTTP)`,
      ),
    )
    .addOption(
      new Option(
        "--admin-token-file <path>",
        "File with the beacon's admin token.\n(default: none; env: BEACON_ADMIN_TOKEN_FILE)",
      ),
    );

const apiOf = ({ out }: Adding, options: Asking): Api => Api.from(options, out.env);

/** Adds the commands that ask a running beacon and change nothing. */
function addReading(adding: Adding): void {
  const { out, end } = adding;
  ask(adding, "status", "healthy and ready, whatever it warns of", "not").action(
    async (options: Asking) =>
      end(await status(apiOf(adding, options), options.json === true, out)),
  );

  ask(adding, "top")
    .addOption(
      count(
        "--count <n>",
        "Print so many lines and end, without a terminal's screen.",
        undefined,
        1,
        1e9,
      ),
    )
    .addHelpText(
      "after",
      `
On a terminal: q quits; m shows the peers in place of the workers; p, b, d and w sort workers by
packets, busy time, drops and number. Elsewhere, and with --json, one line a second. Goes on by itself
when the beacon is started anew. NO_COLOR in the environment leaves colours out.`,
    )
    .action(async (options: Asking & { count?: number }) => {
      const { json, count } = options;
      end(await top(apiOf(adding, options), { json: json === true, count }, out));
    });

  ask(adding, "nodes")
    .option("--prefix <prefix>", "Those at an address, or in a prefix such as 192.0.2.0/24.")
    .addOption(count("--min-age <seconds>", "Those not heard for so long.", undefined, 0, AGE_MAX))
    .addOption(count("--max-age <seconds>", "Those heard within so long.", undefined, 0, AGE_MAX))
    .option("--bridged", "Those connected by WebSocket.")
    .addOption(count("--limit <n>", "Most nodes to show.", 100, 1, 1e9))
    .addOption(new Option("--all", "Show all of them.").conflicts("limit"))
    .addHelpText("after", "\nWith --json, one node a line.")
    .action(async ({ all, ...options }: Asking & NodesOptions & { all?: true }) => {
      const limit = all ? Number.POSITIVE_INFINITY : options.limit;
      end(await nodes(apiOf(adding, options), { ...options, limit }, out));
    });

  ask(adding, "explain", "the next relay to it would go on", "it would be dropped")
    .addArgument(nodeId())
    .action(async (id: number, options: Asking) =>
      end(await explain(apiOf(adding, options), id, options.json === true, out)),
    );
}

/** Adds the commands that change a running beacon. */
function addChanging(adding: Adding): void {
  const { out, end } = adding;
  ask(adding, "disconnect")
    .addArgument(nodeId())
    .action(async (id: number, options: Asking) =>
      end(await disconnect(apiOf(adding, options), id, options.json === true, out)),
    );

  ask(adding, "drain").action(async (options: Asking) =>
    end(await drain(apiOf(adding, options), options.json === true, out)),
  );

  ask(adding, "upgrade").action(async (options: Asking) =>
    end(await upgrade(apiOf(adding, options), options.json === true, out)),
  );
}

function addSupervise({ program }: Adding): void {
  program
    .command("supervise")
    .description(`${commands.supervise}.`)
    .usage("[flags of the server]")
    .argument("[flags...]", "what the server is started with, such as --config beacon.json")
    .addHelpText(
      "after",
      `
For containers, runit, s6, supervisord and shell scripts, which do not follow an upgrade: start this in
place of the server. It passes signals on to the process that serves, follows it to its successor,
starts another one when it crashes or hangs, and ends when it ends, with its exit code.`,
    )
    .action(() => {
      throw new Error("src/main.ts runs this command");
    });
}

function addCheckConfig(adding: Adding): void {
  const { out, end } = adding;
  add(adding, "check-config")
    .usage("[--json] [--as-service <unit>] [flags of the server]")
    .argument("[flags...]", "what the server is started with, such as --config beacon.json")
    .allowUnknownOption()
    .option(
      "--as-service <unit>",
      "Check as the user of this systemd service, which must run. Needs root.",
    )
    .addHelpText("after", "\nExit code: 0 the server would start with it, 2 it would not.")
    .action(async (flags: string[], { json, asService }: { json?: true; asService?: string }) => {
      const jsonFlag = json ? ["--json"] : [];
      if (asService !== undefined) {
        end(await runAsService(asService, ["check-config", ...jsonFlag, ...flags]));
        return;
      }
      // Loaded here, as it brings the code of the server's start.
      const { checkConfig } = await import("./check-config.ts");
      end(await checkConfig(flags, version, json === true, out));
    });
}

function addProbe(adding: Adding): void {
  const { out, end } = adding;
  add(adding, "probe")
    .argument("<host:port>", "where the beacon's UDP is")
    .addOption(count("--count <n>", "Packets of each kind.", 20, 1, 100_000))
    .addOption(count("--interval <ms>", "Milliseconds from one packet to the next.", 20, 1, 60_000))
    .addOption(count("--size <bytes>", "Payload of a relay.", 64, PAYLOAD_BYTES_MIN, 65_000))
    .addOption(count("--timeout <ms>", "Milliseconds that an answer may take.", 1000, 1, 60_000))
    .addOption(new Option("-4, --ipv4", "Try IPv4 addresses alone.").conflicts("ipv6"))
    .option("-6, --ipv6", "Try IPv6 addresses alone.")
    .addHelpText(
      "after",
      `
Asks for this host's address as the beacon sees it, and has two nodes of random ids punch and relay
through it. Stays below a beacon's limits; the beacon forgets the two nodes by itself.

Exit code: 0 all is well, 1 something was lost or failed, 2 wrong usage, 3 no answer.`,
    )
    .action(async (target: string, { ipv4, ipv6, json, ...given }: ProbeFlags) => {
      const options = {
        count: given.count,
        intervalMs: given.interval,
        sizeBytes: given.size,
        timeoutMs: given.timeout,
      };
      end(await probeCommand(target, ipv4 ? 4 : ipv6 ? 6 : 0, options, json === true, out));
    });
}

function addCompletion({ program, out, end }: Adding): void {
  program
    .command("completion")
    .description(`${commands.completion}: source <(beacon completion bash)`)
    .addArgument(new Argument("<shell>").choices(SHELLS))
    .action(async (shell: Shell) => {
      const { completion } = await import("./completion.ts"); // loads all features
      out.raw(completion(shell));
      end(EXIT_OK);
    });
}

/** An option that is a whole number. */
function count(
  flags: string,
  help: string,
  fallback: number | undefined,
  min: number,
  max: number,
): Option {
  const option = new Option(flags, help).argParser(wholeFrom(min, max));
  return fallback === undefined ? option : option.default(fallback);
}

function nodeId(): Argument {
  return new Argument("<node id>", "a node's number").argParser(wholeFrom(1, NODE_ID_MAX));
}

function wholeFrom(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max))
      throw new InvalidArgumentError(`must be a whole number from ${min} to ${max}`);
    return value;
  };
}
