/** What the bridge is run with, from the configuration, the files that it names, and the system. */
import { isDeepStrictEqual } from "node:util";
import { parseHostNamePort } from "../../config/units.ts";
import type { Config } from "../../config.ts";
import { FileKeys } from "../keys/file-keys.ts";
import { FunctionKeys, type KeyFunction, type KeySource } from "../keys/keys.ts";
import { RegistryKeys } from "../keys/registry-keys.ts";
import { readTlsFiles } from "../kit/certificates.ts";
import type { BridgeOptions } from "./bridge.ts";

/**
/**
 * Reads the files anew, whether their names are new or not.
 * @param keys from `keySource`, of the same configuration
 * @throws ConfigError when a file cannot be used
 */
export function bridgeOptions(config: Config, keys: KeySource): BridgeOptions {
  const { wssTlsCert, wssTlsKey } = config;
  return {
    maxPeers: config.wssMaxPeers,
    upgradeLimit: config.wssUpgradeLimit,
    failureLimit: config.wssFailureLimit,
    limitsShadow: config.limitsShadow,
    trustedProxies: config.wssTrustedProxies,
    tls: wssTlsCert === "off" ? undefined : readTlsFiles(wssTlsCert, wssTlsKey),
    keys,
  };
}

/**
 * Where the nodes' keys are looked up, if anybody does: the bridge, and who verifies grants. A key file is read anew; a source that would
 * be the same one stays, with what it knows and is asked.
 * @param keyOf the source of a library's user, which outranks the configured ones
 * @param before the source until now
 * @returns undefined if there is none; a bridge has one
 * @throws ConfigError when the file cannot be used
 */
export function keySource(
  { wss, requirePunchGrant, wssKeys, registry }: Config,
  keyOf: KeyFunction | undefined,
  before?: KeySource,
): KeySource | undefined {
  if (wss === "off" && !requirePunchGrant) return undefined;
  if (keyOf) return before instanceof FunctionKeys ? before : new FunctionKeys(keyOf); // a beacon's function is its for life
  if (wssKeys !== "off") return FileKeys.read(wssKeys);
  if (registry === "off") return undefined;
  const address = parseHostNamePort(registry);
  return before instanceof RegistryKeys && isDeepStrictEqual(before.registry, address)
    ? before
    : new RegistryKeys({ registry: address });
}
