/** `beacon check-config`: checks flags, environment and files without serving. */
import { accessSync, constants, existsSync } from "node:fs";
import { dirname } from "node:path";
import { ConfigError, shown } from "../config/units.ts";
import {
  type Config,
  compareConfigs,
  flagOf,
  maskedConfig,
  type Property,
  parseCommandLine,
} from "../config.ts";
import type { AnyFeature } from "../control/feature.ts";
import { FeatureFiles } from "../control/services.ts";
import { features } from "../features.ts";
import { Api, apiUrl } from "./api.ts";
import { type Console, EXIT_OK, EXIT_USAGE } from "./console.ts";
import { table } from "./text.ts";

/** @returns EXIT_USAGE for what the server would refuse */
export async function checkConfig(
  flags: readonly string[],
  version: string,
  asJson: boolean,
  out: Console,
): Promise<number> {
  const problems: string[] = [];
  let line: ReturnType<typeof parseCommandLine> | undefined;
  try {
    line = parseCommandLine(flags, out.env, version);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    problems.push(error.message);
  }
  if (line?.kind === "print") {
    out.raw(line.text);
    return EXIT_OK;
  }
  const files = line && (await checkFiles(line.config));
  problems.push(...(files?.problems ?? []));
  const warnings = files?.warnings ?? [];
  const running = line === undefined ? undefined : await askRunning(line.config);
  const code = problems.length === 0 ? EXIT_OK : EXIT_USAGE;
  if (asJson) {
    out.json({
      ok: problems.length === 0,
      problems,
      warnings,
      userId: process.geteuid!(),
      config: line === undefined ? null : maskedConfig(line.config),
      from: line?.places ?? null,
      running: running ?? null,
    });
    return code;
  }
  for (const problem of problems) out.problem(problem);
  for (const warning of warnings) out.problem(`warning: ${warning}`);
  if (line === undefined) return code;
  if (problems.length === 0) out.line("the configuration is good");
  if (process.geteuid!() === 0)
    out.line(
      "checked as root, who may read every file: --as-service <unit> checks as a service's user",
    );
  for (const text of placesLines(line.places)) out.line(text);
  for (const text of runningLines(running)) out.line(text);
  return code;
}

/** Reads the files as the server's start does. Returns errors, and warnings. */
async function checkFiles(
  config: Config,
): Promise<{ problems: string[]; warnings: readonly string[] }> {
  const problems: string[] = [];
  const onMistake = ({ message }: ConfigError) => void problems.push(message);
  const files = new FeatureFiles(features, config, {}, undefined, onMistake);
  const warnings = [...files.warnings];
  for (const feature of features as readonly AnyFeature[]) {
    try {
      const warning = await feature.checkStart?.(config);
      if (warning !== undefined) warnings.push(warning);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      onMistake(error);
    }
  }
  const { stateFile } = config;
  if (stateFile !== "off") {
    const must = (path: string, mode: number, what: string) => {
      try {
        accessSync(path, mode);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        problems.push(`${shown(path)}: --state-file: ${what} (${code ?? "unknown error"})`);
      }
    };
    must(
      dirname(stateFile),
      constants.W_OK | constants.X_OK,
      "nothing can be written into the folder",
    );
    if (existsSync(stateFile)) must(stateFile, constants.R_OK, "it cannot be read");
  }
  return { problems, warnings };
}

/** What a beacon that runs would make of this configuration. */
type Running =
  | {
      readonly url: string;
      readonly reloaded: readonly string[];
      readonly needRestart: readonly string[];
    }
  | { readonly url: string; readonly unknown: string };

/** @returns undefined where HTTP is off, or where it will be is not known yet */
async function askRunning(config: Config): Promise<Running | undefined> {
  let url: URL;
  try {
    url = apiUrl(config.http);
  } catch {
    return undefined;
  }
  try {
    const api = new Api(url, config.adminTokenFile === "off" ? undefined : config.adminTokenFile);
    const running = (await api.get("api/config")) as Config;
    const { reloaded, needRestart } = compareConfigs(
      running,
      maskedConfig(config) as unknown as Config,
    );
    return { url: url.href, reloaded: reloaded.map(flagOf), needRestart: needRestart.map(flagOf) };
  } catch (error) {
    return { url: url.href, unknown: error instanceof Error ? error.message : String(error) };
  }
}

function placesLines(places: Readonly<Partial<Record<Property, string>>>): string[] {
  const rows = Object.entries(places).map(([property, where]) => [
    `  ${flagOf(property as Property)}`,
    where,
  ]);
  return rows.length === 0
    ? ["all options have their defaults"]
    : ["other than the defaults were given:", ...table(["", ""], rows, [0, 1]).slice(1)];
}

function runningLines(running: Running | undefined): string[] {
  if (running === undefined) return [];
  if ("unknown" in running) return [`not compared with a running beacon: ${running.unknown}`];
  const { url, reloaded, needRestart } = running;
  const list = (flags: readonly string[]) => (flags.length === 0 ? "nothing" : flags.join(", "));
  return [
    `beside the beacon at ${url} (secrets are not compared):`,
    `  a SIGHUP changes     ${list(reloaded)}`,
    `  a restart is needed  ${needRestart.length === 0 ? "for nothing" : `for ${list(needRestart)}`}`,
  ];
}
