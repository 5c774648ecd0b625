/**
 * The beacon's configuration, from the command line or from code. A flag outranks the environment,
 * which outranks the config file, which outranks the default; every value given is checked, also
 * one that is outranked, so that no mistake waits for the day when it comes into use.
 */
import { inspect, isDeepStrictEqual } from "node:util";
import { Command, CommanderError, Option } from "commander";
import { commands } from "./config/commands.ts";
import { jsonShown, jsonText, readJsonObject } from "./config/file.ts";
import { check } from "./config/kinds.ts";
import { pathFromStart } from "./config/start-folder.ts";
import { ConfigError, quoted, shown, withReason } from "./config/units.ts";
import type { Given } from "./control/feature.ts";
import {
  type Config,
  checkTogether,
  envName,
  flagOf,
  masked,
  type Property,
  type Setting,
  settings,
  valueForm,
} from "./settings.ts";

export { ConfigError, type HostPort, parseHostNamePort, parseHostPort } from "./config/units.ts";
export {
  type Config,
  type ConfigChanges,
  compareConfigs,
  flagOf,
  maskedConfig,
  type Property,
  reloadedConfig,
} from "./settings.ts";

/** The command line's request: run, or print a text and exit with 0. */
export type CommandLine =
  | { readonly kind: "run"; readonly config: Config; readonly places: Places }
  | { readonly kind: "print"; readonly text: string };

/** Source of each value that is no default, as in messages: `--workers 2`; secrets masked. */
export type Places = Readonly<Partial<Record<Property, string>>>;

const HELP_COLUMNS = 100;

const HELP_ENDING = `
Commands beside the server (see beacon help):
${wrapped(Object.keys(commands))}

One dash or two, a space or "=": -addr :9001 and --addr=:9001 are the same.
Flags outrank the environment, which outranks the config file, which outranks the defaults.
The config file is one JSON object; its keys are the flags without dashes: {"max-nodes": 100000}.

Example:
  beacon --addr 0.0.0.0:9001 --max-nodes 100000 --log-format json`;

/** Words in indented lines that fit into the help text. */
function wrapped(words: readonly string[]): string {
  const lines = [""];
  for (const [i, word] of words.entries()) {
    const text = i + 1 < words.length ? `${word},` : word;
    if (`  ${lines.at(-1)} ${text}`.length > HELP_COLUMNS) lines.push("");
    lines[lines.length - 1] = `${lines.at(-1)} ${text}`.trimStart();
  }
  return lines.map((line) => `  ${line}`).join("\n");
}

/** The values of one source, by property, each with the place it came from. */
type Level = ReadonlyMap<Property, { readonly value: unknown; readonly where: string }>;

/** What runs when nothing is given. Reading it checks every default against its own range. */
export const defaultConfig: Config = Object.freeze(settle([]));

/** Reads arguments, environment and config file. Never prints or exits. @throws ConfigError */
export function parseCommandLine(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  version: string,
): CommandLine {
  let printed = "";
  const program = createProgram(version, (text) => {
    printed += text;
  });
  const { args, unknown } = withTwoDashes(argv, program.options);
  try {
    program.parse(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { kind: "print", text: printed };
    if (error.code === "commander.excessArguments") {
      const [word = ""] = program.args;
      throw new ConfigError(
        `${hasSecret(args) ? "***" : shown(word)}: only flags are taken (see --help)`,
      );
    }
    const near = /\n\(Did you mean (.*)\?\)$/.exec(error.message);
    const hint = near === null ? "" : `; did you mean ${near[1]}?`;
    throw new ConfigError(`${shown(unknown ?? "")}: unknown flag${hint} (see --help)`);
  }

  const flags = program.opts<Record<string, string>>();
  // set but empty counts as unset
  const variable = (flag: string) => env[envName(flag)] || undefined;
  const levels = [
    readLevel(
      ({ flag }) => flags[attributeName(flag)],
      ({ flag }, text) => `--${flag} ${masked(flag, shown(text))}`,
    ),
    readLevel(
      ({ flag }) => variable(flag),
      ({ flag }, text) => `${envName(flag)}=${masked(flag, shown(text))}`,
    ),
  ];
  const path = flags["config"] ?? variable("config");
  if (path !== undefined) levels.push(readFileLevel(configPath(path)));
  return { kind: "run", config: settle(levels), places: placesOf(levels) };
}

/**
 * The config of a beacon started from code: `partial` over the defaults, http "off" unless asked
 * for. The ranges are those of the command line. Throws a ConfigError that names the property.
 */
export function validateConfig(partial: Partial<Config>, given: Given = {}): Config {
  const { httpIsDefault, ...options } = partial;
  const values: Partial<Record<Property, unknown>> = {};
  for (const [property, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const setting = settings.find((each) => each.property === property);
    if (setting === undefined) throw new ConfigError(`${shown(property)}: unknown option`);
    const text = typeof value === "string" ? quoted(value) : shown(inspect(value, { depth: 0 }));
    values[setting.property] = withReason(
      () => check(setting.kind, value),
      (reason) => `${property} ${masked(setting.flag, text)}: ${reason}`,
    );
  }
  const config = {
    ...defaultConfig,
    http: "off",
    ...(values as Partial<Config>), // each value went through the check of its own property
    httpIsDefault: httpIsDefault ?? values.http === undefined,
  };
  checkTogether(config, (property) => property, given);
  return config;
}

function createProgram(version: string, print: (text: string) => void): Command {
  const program = new Command("beacon")
    .description("UDP rendezvous and relay server for Pilot Protocol")
    .usage("[flags]")
    .exitOverride()
    .configureOutput({
      writeOut: print,
      writeErr: () => {},
      getOutHelpWidth: () => HELP_COLUMNS,
      getOutHasColors: () => false,
    });
  for (const setting of settings) {
    const { flag, group, help, defaultNote, default: fallback } = setting;
    const note = fallback === undefined ? "" : `default: ${defaultNote ?? fallback}; `;
    // Not Option.env(): commander would read process.env itself, past the environment handed to us.
    const text = `${help}\n(${note}env: ${envName(flag)})`;
    program.addOption(new Option(`--${flag} ${valueForm(setting)}`, text).helpGroup(group));
  }
  return program
    .optionsGroup("General:")
    .addOption(
      new Option("--config <path>", "JSON file with any of the above.\n(env: BEACON_CONFIG)"),
    )
    .version(`pilot-beacon ${version}`, "--version", "Print the version and exit.")
    .helpOption("-h, --help", "Print this text and exit.")
    .addHelpText("after", HELP_ENDING);
}

/**
 * Go's flags take one dash or two, commander's long ones two, and commander lets `--addr --workers`
 * take the second flag as the value of the first. So each flag is joined here with its value, as
 * `--flag=value`. `unknown` is the first unknown flag as it was typed, without its value.
 */
function withTwoDashes(
  argv: readonly string[],
  options: readonly Option[],
): { args: string[]; unknown: string | undefined } {
  const takesValue = new Map(options.map((option) => [option.name(), option.required]));
  takesValue.set("help", false).set("h", false);
  const args: string[] = [];
  let unknown: string | undefined;
  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i]!;
    const match = /^--?([^-=][^=]*)(=?)(.*)$/s.exec(arg);
    if (arg === "--") return { args: [...args, ...argv.slice(i)], unknown };
    const name = match?.[1] ?? "";
    const needsValue = takesValue.get(name);
    if (match === null || needsValue === undefined) {
      // Without its value: the flag may be a secret's, but for a slip.
      if (arg.startsWith("-") && arg !== "-") unknown ??= flagIn(arg);
      // without its value, so that a close name is found
      args.push(match === null ? arg : `--${name}`);
    } else if (!needsValue) {
      if (match[2] === "=") throw new ConfigError(`${shown(arg)}: --${name} takes no value`);
      args.push(name === "h" ? "--help" : `--${name}`);
    } else if (match[2] === "=") {
      args.push(`--${name}=${match[3]}`);
    } else {
      const value = argv[++i];
      if (value === undefined || value.startsWith("-"))
        throw new ConfigError(
          `--${name}: needs a value${value === undefined ? "" : `, not ${masked(name, shown(flagIn(value)))}`}`,
        );
      args.push(`--${name}=${value}`);
    }
  }
  return { args, unknown };
}

/** A flag as it was typed, without the value behind it. */
function flagIn(arg: string): string {
  return /^-+[^-=][^=]*/.exec(arg)?.[0] ?? arg;
}

/** Whether a secret was given: then a word too many may be the rest of one with a space in it. */
function hasSecret(args: readonly string[]): boolean {
  return settings.some(
    ({ flag, secret }) => secret && args.some((arg) => arg.startsWith(`--${flag}=`)),
  );
}

/** Reads and checks one source's values; refuses two flags of a property that disagree. */
function readLevel<T>(
  find: (setting: Setting) => T | undefined,
  place: (setting: Setting, written: T) => string,
): Level {
  const level = new Map<Property, { value: unknown; where: string }>();
  for (const setting of settings) {
    const written = find(setting);
    if (written === undefined) continue;
    const where = place(setting, written);
    const value = withReason(
      () => check(setting.kind, parse(setting, written)),
      (reason) => `${where}: ${reason}`,
    );
    const other = level.get(setting.property);
    if (other !== undefined && !isDeepStrictEqual(other.value, value))
      throw new ConfigError(
        `${where}: ${other.where} sets the same to another value; give one of them`,
      );
    level.set(setting.property, { value, where });
  }
  return level;
}

function parse({ kind }: Setting, written: unknown): unknown {
  if (typeof written !== "string" && kind.fromJson !== undefined) return kind.fromJson(written);
  return kind.parse(jsonText(written));
}

function configPath(path: string): string {
  return withReason(
    () => pathFromStart(path),
    (reason) => `--config ${shown(path)}: ${reason}`,
  );
}

function readFileLevel(path: string): Level {
  const object = readJsonObject(path);
  for (const key of Object.keys(object)) {
    if (!settings.some(({ flag }) => flag === key))
      throw new ConfigError(
        `${shown(path)}: ${shown(key)}: unknown key (the keys are the flags in --help)`,
      );
  }
  return readLevel(
    ({ flag }) => (Object.hasOwn(object, flag) ? object[flag] : undefined),
    ({ flag }, value) => `${shown(path)}: "${flag}": ${masked(flag, jsonShown(value))}`,
  );
}

/** The first level with a property decides it. @throws ConfigError for options that conflict */
function settle(levels: readonly Level[]): Config {
  const defaults = readLevel(
    (setting) => setting.default,
    ({ flag }) => `default of --${flag}`,
  );
  const values = settings.map(({ property }) => {
    const level = levels.find((each) => each.has(property)) ?? defaults;
    return [property, level.get(property)?.value] as const;
  });
  // The table's type ties each property to a kind that yields its type, and every property has a
  // default.
  const decided = Object.fromEntries(values) as Omit<Config, "httpIsDefault">;
  const config = { ...decided, httpIsDefault: !levels.some((level) => level.has("http")) };
  checkTogether(config, flagOf, {});
  return config;
}

function placesOf(levels: readonly Level[]): Places {
  const found = settings.flatMap(({ property }) => {
    const level = levels.find((each) => each.has(property));
    return level === undefined ? [] : [[property, level.get(property)!.where] as const];
  });
  return Object.fromEntries(found);
}

/** commander's name for an option's value: --max-nodes is maxNodes. */
function attributeName(flag: string): string {
  return new Option(`--${flag} <value>`).attributeName();
}
