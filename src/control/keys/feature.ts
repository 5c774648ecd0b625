/** The nodes' public keys: where the bridge and punch grants look them up. */
import { isDeepStrictEqual } from "node:util";
import { parseHostNamePort } from "../../config/units.ts";
import type { AnyFeature, Host, Reading } from "../feature.ts";
import { FileKeys } from "./file-keys.ts";
import { FunctionKeys, type KeySource } from "./keys.ts";
import { type KeysConfig, keysOptions } from "./options.ts";
import { RegistryKeys } from "./registry-keys.ts";

type Source = KeySource | undefined;
type Config = KeysConfig & {
  readonly wss: string;
  readonly requirePunchGrant: boolean;
  readonly registry: string;
};

/** Returns the key source; undefined if none is needed or known. Keeps an equal one. */
function read(
  { wss, requirePunchGrant, wssKeys, registry }: Config,
  reading: Reading<Source>,
): Source {
  const { given, before } = reading;
  if (wss === "off" && !requirePunchGrant) return undefined;
  if (given.keyOf) return before instanceof FunctionKeys ? before : new FunctionKeys(given.keyOf);
  if (wssKeys !== "off") return FileKeys.read(wssKeys);
  if (registry === "off") return undefined;
  const address = parseHostNamePort(registry);
  return before instanceof RegistryKeys && isDeepStrictEqual(before.registry, address)
    ? before
    : new RegistryKeys({ registry: address });
}

export const keys = {
  name: "keys",
  options: keysOptions,
  read,
  create({ files }: Host<Config, Source>) {
    let source = files;
    return {
      get source() {
        return source;
      },
      reconfigure(_: Config, changed: Source) {
        if (changed !== source) source?.close();
        source = changed;
      },
      stop: () => source?.close(),
    };
  },
} satisfies AnyFeature;
