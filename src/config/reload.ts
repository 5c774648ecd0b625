/** What another config changes of a beacon that runs. */
import { isDeepStrictEqual } from "node:util";
import { checkTogether, type HandedOver } from "./rules.ts";
import { type Config, flagOf, type Property, settings } from "./settings.ts";

/** The properties whose values differ, in the order of the help text. */
export interface ConfigChanges {
  /** Those that can change while the beacon runs. */
  readonly reloaded: readonly Property[];
  /** Those that stay as they are until it is started again. */
  readonly needRestart: readonly Property[];
}

const reloadable: ReadonlySet<Property> = new Set(
  settings.filter((setting) => setting.reloadable).map(({ property }) => property),
);

export function compareConfigs(running: Config, wanted: Config): ConfigChanges {
  const properties = [...new Set(settings.map(({ property }) => property))];
  const changed = properties.filter(
    (property) => !isDeepStrictEqual(running[property], wanted[property]),
  );
  return {
    reloaded: changed.filter((property) => reloadable.has(property)),
    needRestart: changed.filter((property) => !reloadable.has(property)),
  };
}

/**
 * The running config with what can change taken from the wanted one. Throws a ConfigError where the
 * two do not go together: a registry, and the beacon id that it needs only in the wanted config; or
 * a bridge that goes on, and nothing left that knows the nodes' keys.
 */
export function reloadedConfig(
  running: Config,
  wanted: Config,
  handedOver: HandedOver = {},
): Config {
  const { reloaded } = compareConfigs(running, wanted);
  const config = {
    ...running,
    ...Object.fromEntries(reloaded.map((property) => [property, wanted[property]])),
  };
  checkTogether(config, flagOf, handedOver);
  return config;
}
