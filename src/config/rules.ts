/** What options ask of each other, once each is right by itself. */
import { readBounded } from "./file.ts";
import { type Config, type Property, token } from "./settings.ts";
import { ConfigError, isWildcard, parseHostPort, shown, withReason } from "./units.ts";

/** A few of the longest tokens; the bound keeps a wrong path from being read whole. */
const TOKEN_FILE_BYTES_MAX = 4096;

/** What code can hand to a beacon beside its options. */
export interface HandedOver {
  /** Something that knows the nodes' keys, so that neither a file nor the registry has to. */
  readonly hasKeySource?: boolean;
}

/**
 * Throws a ConfigError for options that do not go together. `nameOf` says what a property is called
 * where the config comes from: its flag, or itself.
 */
export function checkTogether(
  config: Config,
  nameOf: (property: Property) => string,
  { hasKeySource = false }: HandedOver = {},
): void {
  if (config.registry !== "off" && config.beaconId === 0)
    throw new ConfigError(
      `${nameOf("registry")} needs ${nameOf("beaconId")}: a number other than 0, its own for each beacon`,
    );
  if (config.directory !== "off" && config.beaconId === 0)
    throw new ConfigError(
      `${nameOf("directory")} needs ${nameOf("beaconId")}: a number other than 0, its own for each beacon`,
    );
  if (config.directoryCaFile !== "off" && !config.directory.startsWith("rediss:"))
    throw new ConfigError(
      `${nameOf("directoryCaFile")} needs ${nameOf("directory")} to be rediss://`,
    );
  if (
    config.directory !== "off" &&
    config.advertiseAddr === "auto" &&
    isWildcard(parseHostPort(config.addr).host)
  )
    throw new ConfigError(
      `${nameOf("directory")} needs ${nameOf("advertiseAddr")} where ${nameOf("addr")} is every address: others have to be told of one`,
    );
  if (config.peerTimeoutMs <= config.gossipIntervalMs)
    throw new ConfigError(
      `${nameOf("peerTimeoutMs")}: must be longer than ${nameOf("gossipIntervalMs")}, ${config.gossipIntervalMs}ms`,
    );
  if (config.registryAdminToken !== "" && config.registryAdminTokenFile !== "off")
    throw new ConfigError(
      `${nameOf("registryAdminTokenFile")}: ${nameOf("registryAdminToken")} sets the same; give one of them`,
    );
  if (config.adminAuth === "always" && config.adminTokenFile === "off")
    throw new ConfigError(
      `${nameOf("adminAuth")} always needs ${nameOf("adminTokenFile")}: without a token nobody could read the API`,
    );
  if (config.wssTlsCert !== "off" && config.wssTlsKey === "off")
    throw new ConfigError(
      `${nameOf("wssTlsCert")} needs ${nameOf("wssTlsKey")}: the certificate's private key`,
    );
  if (config.wssTlsKey !== "off" && config.wssTlsCert === "off")
    throw new ConfigError(
      `${nameOf("wssTlsKey")} needs ${nameOf("wssTlsCert")}: the key's certificate`,
    );
  if (
    config.wss !== "off" &&
    config.wssKeys === "off" &&
    config.registry === "off" &&
    !hasKeySource
  )
    throw new ConfigError(
      `${nameOf("wss")} needs ${nameOf("wssKeys")} or ${nameOf("registry")}: ` +
        "something that knows the nodes' keys",
    );
}

/**
 * The config with the token in the place of the file that holds it, so that a config that was
 * checked is right when it is checked again. Throws a ConfigError that names the file, never what
 * it holds.
 */
export function withTokenRead(config: Config): Config {
  const path = config.registryAdminTokenFile;
  if (path === "off") return config;
  const text = new TextDecoder()
    .decode(readBounded(path, "the token file", TOKEN_FILE_BYTES_MAX))
    .trim();
  if (text === "") throw new ConfigError(`${shown(path)}: the token file is empty`);
  const registryAdminToken = withReason(
    () => token.check(text),
    (reason) => `${shown(path)}: the token in it ${reason}`,
  );
  return { ...config, registryAdminToken, registryAdminTokenFile: "off" };
}
