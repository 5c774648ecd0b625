/**
 * All files that a configuration names, read and checked before anything else happens: by the start, by a reload, and by `check-config`,
 * which therefore refuses what the server refuses. Nothing here opens a socket.
 */
import { ConfigError, shown } from "../config/units.ts";
import type { Config } from "../config.ts";
import { AdminToken } from "./admin/token.ts";
import type { BridgeOptions } from "./bridge/bridge.ts";
import { bridgeOptions, keySource } from "./bridge/setup.ts";
import { storeOptions } from "./directory/options.ts";
import type { KeyFunction, KeySource } from "./keys/keys.ts";
import { expiryOf } from "./kit/certificates.ts";
import { type GossipKeys, NO_GOSSIP_KEYS, readGossipKeys } from "./mesh/gossip-keys.ts";
import { checkStatePath } from "./nodes/state-path.ts";

export interface Inputs {
  /** Undefined for none. */
  readonly adminToken: AdminToken | undefined;
  readonly gossipKeys: GossipKeys;
  /** Where nodes' keys are looked up; undefined if nothing needs them. */
  readonly keys: KeySource | undefined;
  /** Undefined without a bridge. */
  readonly bridge: BridgeOptions | undefined;
  /** Mistakes to mend, though the server starts. */
  readonly warnings: readonly string[];
}

export interface InputOptions {
  /** The source of a library's user, which outranks the configured ones. */
  readonly keyOf?: KeyFunction | undefined;
  /** The source until now, which stays if it would be the same. */
  readonly keysBefore?: KeySource | undefined;
  /** Checks a state file's path, in place of `checkStatePath`, which waits for its file system. */
  readonly checkState?: (path: string) => Promise<string | undefined>;
  /** Receives each mistake, so that all are found; unless given, the first one is thrown. */
  readonly onMistake?: (mistake: ConfigError) => void;
}

const throwIt = (mistake: ConfigError): never => {
  throw mistake;
};

/** @throws ConfigError that names the file, and never what is in it */
export function readInputs(
  config: Config,
  { keyOf, keysBefore, onMistake = throwIt }: InputOptions = {},
): Inputs {
  const warnings: string[] = [];
  const attempt = <T>(read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      onMistake(error);
      return undefined;
    }
  };
  const warnIf = (isExposed: boolean | undefined, path: string, what: string) => {
    if (isExposed) warnings.push(`${shown(path)}: ${what} can be read by others than its owner: chmod 600`);
  };
  const { adminTokenFile, gossipKeyFile, directory, directoryAuthFile, wss, wssTlsCert } = config;
  const adminToken = adminTokenFile === "off" ? undefined : attempt(() => AdminToken.read(adminTokenFile));
  warnIf(adminToken?.isExposed, adminTokenFile, "the admin token");
  const gossipKeys = attempt(() => readGossipKeys(gossipKeyFile)) ?? NO_GOSSIP_KEYS;
  warnIf(gossipKeys.exposed, gossipKeyFile, "the gossip key file");
  // For its mistakes alone: the files are read again for each connection, as a password may change.
  const store = directory === "off" ? undefined : attempt(() => storeOptions(config));
  warnIf(store?.authFileExposed, directoryAuthFile, "the directory's password file");
  const keys = attempt(() => keySource(config, keyOf, keysBefore));
  const bridge = wss === "off" ? undefined : attempt(() => bridgeOptions(config, keys!));
  const expiry = bridge?.tls && expiryOf(bridge.tls, Date.now());
  if (expiry !== undefined) warnings.push(`${shown(wssTlsCert)}: ${expiry}`);
  return { adminToken, gossipKeys, keys, bridge, warnings };
}

/** The same, and what only a start does. @throws ConfigError as `readInputs` does */
export async function readStartInputs(config: Config, options: InputOptions = {}): Promise<Inputs> {
  const { onMistake = throwIt, checkState = checkStatePath } = options;
  const inputs = readInputs(config, options);
  if (config.stateFile === "off") return inputs;
  try {
    const warning = await checkState(config.stateFile);
    return warning === undefined ? inputs : { ...inputs, warnings: [...inputs.warnings, warning] };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    onMistake(error);
    return inputs;
  }
}
