/** All attacks, in the order in which they are tried. */
import type { Attack } from "./attack.ts";
import { BRIDGE_ATTACKS } from "./attacks/bridge.ts";
import { BROKEN_TLS } from "./attacks/broken-tls.ts";
import { CONTROL_ATTACKS } from "./attacks/control.ts";
import { GOSSIP_ATTACKS } from "./attacks/gossip.ts";
import { HIJACKS } from "./attacks/hijack.ts";
import { PUNCH_SCANS } from "./attacks/punch-scan.ts";
import { REFLECTIONS } from "./attacks/reflection.ts";
import { RELAY_FLOODS } from "./attacks/relay-flood.ts";
import { SLOW_HTTP } from "./attacks/slow-http.ts";
import { TABLE_FLOODS } from "./attacks/table-flood.ts";

export const ATTACKS: readonly Attack[] = [
  ...CONTROL_ATTACKS,
  ...HIJACKS,
  ...TABLE_FLOODS,
  ...RELAY_FLOODS,
  ...PUNCH_SCANS,
  ...REFLECTIONS,
  ...GOSSIP_ATTACKS,
  ...SLOW_HTTP,
  ...BRIDGE_ATTACKS,
  ...BROKEN_TLS,
];
