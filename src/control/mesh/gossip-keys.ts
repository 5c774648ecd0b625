/**
 * The keys that sign gossip, from a file: one a line, the one in use first, then, while it is being
 * changed, the one before or after it.
 */
import { isExposed, readBounded } from "../../config/file.ts";
import { ConfigError, shown } from "../../config/units.ts";

/** Two long keys; the bound keeps a wrong path from being read whole. */
const FILE_BYTES_MAX = 4096;
const KEYS_MAX = 2;
/** In hexadecimal 128 bits, with which no key is found by trying. */
const KEY_CHARS_MIN = 32;

export interface GossipKeys {
  /**
   * Any of them may have signed what comes; the first signs what goes. None: gossip is not signed,
   * and no signature is looked at.
   */
  readonly keys: readonly string[];
  /** Whether others than its owner may read the file. */
  readonly exposed: boolean;
}

export const NO_GOSSIP_KEYS: GossipKeys = { keys: [], exposed: false };

/**
 * Reads the file and checks all of it.
 * @param path or "off"
 * @throws ConfigError that names the file and the line that is wrong, never what it holds
 */
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
        `${shown(path)}: line ${i + 1} of the gossip key file must have at least ${KEY_CHARS_MIN} characters of printable ASCII`,
      );
  }
  return { keys, exposed: isExposed(path) };
}
