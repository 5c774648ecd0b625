/**
 * The configuration: arguments, environment and a file; and the small languages that options are
 * written in.
 */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  ConfigError,
  parseAddressPrefix,
  parseBytes,
  parseDirectory,
  parseDurationMs,
  parseHostNamePort,
  parseHostPort,
} from "../../../src/config/units.ts";
import { type Config, parseCommandLine, validateConfig } from "../../../src/config.ts";
import { FileKeys } from "../../../src/control/keys/file-keys.ts";
import { readGossipKeys } from "../../../src/control/mesh/gossip-keys.ts";
import { masked, settings } from "../../../src/settings.ts";
import type { Choices } from "../choices.ts";
import { fuzzFolder } from "../folder.ts";
import { jsonValue, mutateText } from "../mutate.ts";
import { fail, mustBe, type OpenTarget, type Seen, type Target } from "../target.ts";

/** A line of a terminal that wraps twice, and a path in it. */
const MESSAGE_CHARS_MAX = 600;
const SECRET = "s3cret-0123456789-of-the-operator";
const FLAGS = [...new Set(settings.map(({ flag }) => flag))];
const VALUES = [
  ...[
    ":9001",
    "0.0.0.0:0",
    "[::1]:1",
    "b2.example:9001",
    "redis://r1.example,[::1]:6380/3",
    "10.0.0.0/8",
    "::1",
    "*",
    "on",
    "off",
    "auto",
    "",
    "0",
    "1",
  ],
  ...["4MiB", "10m", "30s", "info", "json", "4294967295", "1000000001", SECRET, "keys.json"],
];

/** What goes wrong is one line without the operator's secret, and a ConfigError. */
function refusalOf(error: unknown): string {
  if (!(error instanceof ConfigError)) throw error;
  const { message } = error;
  if (message.length === 0 || message.length > MESSAGE_CHARS_MAX)
    fail(`a message of ${message.length} characters`);
  if (/[\p{C}\p{Zl}\p{Zp}]/u.test(message))
    fail(`a message that moves the cursor: ${JSON.stringify(message)}`);
  return message;
}

export const CONFIG: Target = {
  name: "config",
  about: "command line, environment and configuration file",
  choiceBytes: 120,
  open: () => new ConfigTarget(),
};

class ConfigTarget implements OpenTarget {
  readonly #folder = fuzzFolder();

  check(choices: Choices, seen: Seen): void {
    const value = () => {
      const text = choices.pick(VALUES);
      return choices.oneIn(2) ? mutateText(choices, text, 2) : text;
    };
    const argv = choices.some(4, () => {
      const { flag } = choices.pick(settings);
      const secret = masked(flag, "") === "***";
      const text = secret ? SECRET : value();
      return choices.pick([`--${flag}=${text}`, `-${flag}=${text}`, `--${flag}`, text]);
    });
    const env = Object.fromEntries(
      choices.some(3, () => [
        `BEACON_${choices.pick(FLAGS).toUpperCase().replaceAll("-", "_")}`,
        value(),
      ]),
    );
    if (choices.oneIn(4)) {
      const path = join(this.#folder, "config.json");
      const object = Object.fromEntries(
        choices.some(4, () => [
          choices.pick(FLAGS),
          choices.oneIn(2) ? value() : jsonValue(choices),
        ]),
      );
      const json = JSON.stringify(object);
      writeFileSync(path, choices.oneIn(3) ? mutateText(choices, json, 3) : json);
      argv.push(`--config=${path}`);
    }
    seen.note(() => JSON.stringify([argv, env]));
    try {
      const line = parseCommandLine(argv, env, "0");
      seen.outcome(line.kind);
      if (line.kind === "run") checkAgain(line.config);
    } catch (error) {
      const message = refusalOf(error);
      const written = argv.filter(
        (arg) => arg.includes(SECRET) && /^--?registry-admin-token=/.test(arg),
      );
      if (written.length > 0 && message.includes(SECRET) && !VALUES.includes(message)) {
        // A secret that stands where a secret belongs is not repeated; one that was given as
        // something else is only text.
        const elsewhere = argv.some(
          (arg) => arg.includes(SECRET) && !/^--?registry-admin-token=/.test(arg),
        );
        const inEnv = Object.values(env).some((text) => text.includes(SECRET));
        if (!elsewhere && !inEnv && !argv.some((arg) => arg.startsWith("--config=")))
          fail(`tells the secret: ${message}`);
      }
      seen.outcome(message.replace(/^[^:]*:|".*"|\d+/g, "").slice(0, 60));
    }
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** What was accepted is accepted from code, and means the same. */
function checkAgain(config: Config): void {
  const again = validateConfig(config);
  for (const [name, value] of Object.entries(config))
    mustBe(name, JSON.stringify(again[name as keyof Config]), JSON.stringify(value));
}

export const UNITS: Target = {
  name: "units",
  about: "durations, sizes, addresses and prefixes as options have them",
  choiceBytes: 40,
  open: () => ({ check: checkUnits }),
};

const TEXTS = [
  "1h30m",
  "1.5s",
  "500ms",
  "4MiB",
  ":9001",
  "[::1]:9001",
  "a.example:1",
  "10.0.0.0/8",
  "2001:db8::/32",
  "rediss://r1.example:6380,10.0.0.1,[::1]:1/15",
  "::ffff:1.2.3.4/120",
];

function checkUnits(choices: Choices, seen: Seen): void {
  const text = mutateText(choices, choices.pick(TEXTS), 3);
  seen.note(() => JSON.stringify(text));
  const tried = <T>(name: string, parse: (text: string) => T): T | undefined => {
    try {
      const value = parse(text);
      seen.outcome(name);
      return value;
    } catch (error) {
      refusalOf(error);
      return undefined;
    }
  };
  const ms = tried("duration", parseDurationMs);
  if (ms !== undefined && !(ms >= 0 && (Number.isInteger(ms) || ms === Infinity)))
    fail(`a duration of ${ms}`);
  const bytes = tried("size", parseBytes);
  if (bytes !== undefined && !(bytes >= 0)) fail(`a size of ${bytes}`);
  const directory = tried("directory", parseDirectory);
  if (directory !== undefined && directory.servers.length === 0)
    fail("a directory without a server");
  for (const at of [
    tried("address", parseHostPort),
    tried("host", parseHostNamePort),
    ...(directory?.servers ?? []),
  ])
    if (at !== undefined && !(Number.isInteger(at.port) && at.port >= 0 && at.port <= 65_535))
      fail(`a port of ${at.port}`);
  const prefix = tried("prefix", parseAddressPrefix);
  if (prefix !== undefined) {
    const [address, bits] = prefix;
    const [same, sameBits] = parseAddressPrefix(`${address}/${bits}`);
    mustBe("the prefix, written and read again", `${same}/${sameBits}`, `${address}/${bits}`);
  }
}

export const KEY_FILES: Target = {
  name: "key-files",
  about: "the files with nodes' keys and with gossip keys",
  choiceBytes: 100,
  open: () => new KeyFiles(),
};

class KeyFiles implements OpenTarget {
  readonly #folder = fuzzFolder();

  async check(choices: Choices, seen: Seen): Promise<void> {
    const path = join(this.#folder, "keys");
    const key = Buffer.alloc(32, 7).toString("base64");
    if (choices.oneIn(2)) {
      const object = Object.fromEntries(
        choices.some(4, () => [
          choices.pick(["1", "42", "4294967295", "0", "-1", "1e3", "007"]),
          choices.oneIn(3) ? jsonValue(choices, 1) : key,
        ]),
      );
      const json = JSON.stringify(object);
      const text = choices.oneIn(2) ? mutateText(choices, json, 3) : json;
      writeFileSync(path, text);
      seen.note(() => text);
      try {
        const keys = FileKeys.read(path);
        const found = await keys.keyOf(42);
        if (found !== undefined && found.length !== 32) fail(`a key of ${found.length} bytes`);
        seen.outcome(found ? "key" : "no key");
      } catch (error) {
        seen.outcome(
          refusalOf(error)
            .replace(/^.*?: |".*"/g, "")
            .slice(0, 50),
        );
      }
    } else {
      const text = mutateText(choices, `${SECRET}\n${SECRET}-before-it\n`, 3);
      writeFileSync(path, text);
      try {
        const { keys } = readGossipKeys(path);
        if (keys.length < 1 || keys.length > 2 || keys.some((one) => one.length < 32))
          fail(`keys: ${keys.join()}`);
        seen.outcome(`${keys.length} gossip keys`);
      } catch (error) {
        const message = refusalOf(error);
        if (message.includes("s3cret")) fail(`tells the key: ${message}`);
        seen.outcome(message.replace(/^.*?: |\d+/g, "").slice(0, 50));
      }
    }
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
