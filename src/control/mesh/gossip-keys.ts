/** The keys of gossip, from a file: the key in use, and during a change a second one. */
import { isExposed, readBounded } from "../../config/file.ts";
import { ConfigError, shown } from "../../config/units.ts";

/** Two long keys; the bound keeps a wrong path from being read whole. */
const FILE_BYTES_MAX = 4096;
const KEYS_MAX = 2;
/** 128 bits in hexadecimal, which cannot be guessed. */
const KEY_CHARS_MIN = 32;

export interface GossipKeys {
  /** All are accepted; the first one signs. Without any, gossip is unsigned and unchecked. */
  readonly keys: readonly string[];
  /** Whether other users can read the file. */
  readonly exposed: boolean;
}

export const NO_GOSSIP_KEYS: GossipKeys = { keys: [], exposed: false };

/** Reads and checks the file. @throws ConfigError that names file and line, not content */
export function readGossipKeys(path: string | "off"): GossipKeys {
  if (path === "off") return NO_GOSSIP_KEYS;
  const text = new TextDecoder().decode(readBounded(path, "the gossip key file", FILE_BYTES_MAX));
  const keys = text
    .trimEnd()
    .split("\n")
    .map((line) => line.trim());
  if (keys.length > KEYS_MAX)
    throw new ConfigError(`${shown(path)}: the gossip key file has more than ${KEYS_MAX} lines`);
  for (const [i, key] of keys.entries()) {
    if (key.length < KEY_CHARS_MIN || !/^[ -~]*$/.test(key))
      throw new ConfigError(
        `${shown(path)}: line ${i + 1} of the gossip key file must have at least ` +
          `${KEY_CHARS_MIN} characters of printable ASCII`,
      );
  }
  return { keys, exposed: isExposed(path) };
}
