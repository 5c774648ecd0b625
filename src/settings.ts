/** The options of all features, and the configuration that they make up. */
import { isDeepStrictEqual } from "node:util";
import type { NameOf, Option, ValuesOf } from "./config/option.ts";
import type { AnyFeature, Given } from "./control/feature.ts";
import { features } from "./features.ts";

type OptionsOf<F> = F extends { readonly options: infer Groups } ? ValuesOf<Groups> : never;
type All<T> = (T extends T ? (one: T) => void : never) extends (all: infer Every) => void
  ? { readonly [P in keyof Every]: Every[P] }
  : never;

/** The value of each option, by its property. */
type Values = All<OptionsOf<(typeof features)[number]>>;
export type Property = keyof Values;
export type Config = Values & {
  /** Nobody asked for this http address: warn instead of failing when it is taken. */
  readonly httpIsDefault: boolean;
};

/** One flag. */
export interface Setting extends Omit<Option, "alias" | "default"> {
  readonly property: Property;
  /** Heading in the help text. */
  readonly group: string;
  /** As an operator would write it; none of a flag that is another's alias. */
  readonly default?: string;
}

/** Headings of the help text, in its order. Others follow. */
const HEADINGS = [
  "Network:",
  "Mesh:",
  "Directory:",
  "WebSocket bridge:",
  "Nodes' keys:",
  "Limits (0 for none):",
  "Nodes:",
  "Performance:",
  "Process:",
  "Monitoring:",
];

const place = (group: string): number => [...HEADINGS, group].indexOf(group);

/** In the order of the help text. */
export const settings: readonly Setting[] = features
  .flatMap(({ options = {} }: AnyFeature) => Object.entries(options))
  .flatMap(([group, table]) =>
    Object.entries(table).flatMap(([property, { alias, ...option }]) => {
      const setting: Setting = { ...option, property: property as Property, group };
      if (alias === undefined) return [setting];
      const { default: _, ...same } = setting;
      return [setting, { ...same, flag: alias, help: `The same as --${option.flag}.` }];
    }),
  )
  .sort((a, b) => place(a.group) - place(b.group));

/** What stands for a setting's value in the help text: "<count>". */
export const valueForm = ({ form, kind }: Setting): string => `<${form ?? kind.form}>`;

/** The environment variable of a flag: BEACON_MAX_NODES of "max-nodes". */
export function envName(flag: string): string {
  return `BEACON_${flag.toUpperCase().replaceAll("-", "_")}`;
}

/** The flag of a property as it is typed, for messages: "--max-nodes". */
export const flagOf: NameOf<Config> = (property) =>
  `--${settings.find((setting) => setting.property === property)!.flag}`;

/** @throws ConfigError for options that do not go together */
export function checkTogether(config: Config, nameOf: NameOf<Config>, given: Given): void {
  for (const feature of features as readonly AnyFeature[]) feature.check?.(config, nameOf, given);
}

/** What may stand in a message in the place of `text`, the value of this flag. */
export function masked(flag: string, text: string): string {
  const { secret, secretPart } = settings.find((setting) => setting.flag === flag) ?? {};
  if (secret) return "***";
  return secretPart ? text.replace(secretPart, "***") : text;
}

/** The config for people to read: a secret that is set is "***". */
export function maskedConfig(config: Config): Record<string, unknown> {
  const secrets = settings.filter(({ property, secret }) => secret && config[property] !== "");
  return { ...config, ...Object.fromEntries(secrets.map(({ property }) => [property, "***"])) };
}

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
export function reloadedConfig(running: Config, wanted: Config, given: Given = {}): Config {
  const { reloaded } = compareConfigs(running, wanted);
  const config = {
    ...running,
    ...Object.fromEntries(reloaded.map((property) => [property, wanted[property]])),
  };
  checkTogether(config, flagOf, given);
  return config;
}
