/** The commands beside the server, as commander has them: their names, arguments and options, and what each runs. */
import { Argument, Command, InvalidArgumentError, Option } from "commander";
import packageJson from "../../package.json" with { type: "json" };
import { type CommandName, commands } from "../config/commands.ts";
import { type Access, API_DEFAULT, Api } from "./api.ts";
import { checkConfig } from "./check-config.ts";
import { completion, SHELLS, type Shell } from "./completion.ts";
import { type Console, EXIT_OK, processConsole } from "./console.ts";
import { status } from "./status.ts";

const HELP_COLUMNS = 100;

const version: string = packageJson.version;

/** What all commands that ask a beacon have in common, as commander gives it. */
interface Asking extends Access {
  readonly json?: true;
}

/**
 * @param out where commands write to
 * @param end gets the exit code of the command that ran
 */
export function createProgram(
  out: Console = processConsole,
  end: (code: number) => void = () => {},
): Command {
  const program = new Command("beacon")
    .description("Commands beside the server, which `beacon` with flags alone is (see beacon --help).")
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

  /** A command that ends with what `run` returns. */
  const add = (name: CommandName) =>
    program.command(name).description(`${commands[name]}.`).option("--json", "Print JSON, for programs.");

  /** One that asks a beacon. */
  const ask = (name: CommandName) =>
    add(name)
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
  const api = (options: Asking) => Api.from(options, out.env);

  ask("status")
    .addHelpText("after", "\nExit code: 0 healthy and ready, 1 not, 2 wrong usage, 3 no beacon answers.")
    .action(async (options: Asking) => end(await status(api(options), options.json === true, out)));

  add("check-config")
    .usage("[--json] [flags of the server]")
    .argument("[flags...]", "what the server is started with, such as --config beacon.json")
    .allowUnknownOption()
    .addHelpText("after", "\nExit code: 0 the server would take it, 2 it would not.")
    .action(async (flags: string[], { json }: { json?: true }) =>
      end(await checkConfig(flags, version, json === true, out)),
    );

  program
    .command("completion")
    .description(`${commands.completion}: source <(beacon completion bash)`)
    .addArgument(new Argument("<shell>").choices(SHELLS))
    .action((shell: Shell) => {
      out.raw(completion(shell));
      end(EXIT_OK);
    });

  return program;
}

/** For options that are a whole number. */
export function wholeFrom(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max))
      throw new InvalidArgumentError(`must be a whole number from ${min} to ${max}`);
    return value;
  };
}
