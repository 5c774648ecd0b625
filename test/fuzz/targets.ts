/** All that can be fuzzed. */
import type { Target } from "./target.ts";
import { CONFIG, KEY_FILES, UNITS } from "./targets/config.ts";
import { CONTROL_MESSAGES } from "./targets/control-messages.ts";
import { DATAGRAMS } from "./targets/datagrams.ts";
import { DIRECTORY_ENTRIES, DIRECTORY_PARTS } from "./targets/directory.ts";
import { ANNOUNCEMENTS, SIGNATURES } from "./targets/gossip.ts";
import { FORWARDED, HANDSHAKE } from "./targets/handshake.ts";
import { REGISTRY } from "./targets/registry.ts";
import { STATE_FILE } from "./targets/state-file.ts";

export const TARGETS: readonly Target[] = [
  DATAGRAMS,
  CONTROL_MESSAGES,
  SIGNATURES,
  ANNOUNCEMENTS,
  REGISTRY,
  HANDSHAKE,
  FORWARDED,
  CONFIG,
  UNITS,
  KEY_FILES,
  STATE_FILE,
  DIRECTORY_ENTRIES,
  DIRECTORY_PARTS,
];
