/** The options of the punch. */
import { onOff } from "../../config/kinds.ts";
import type { OptionGroups, ValuesOf } from "../../config/option.ts";

export const punchOptions = {
  "Limits (0 for none):": {
    requirePunchGrant: {
      flag: "require-punch-grant",
      kind: onOff,
      default: "off",
      help: "Punch requests need their target's signature.",
      reloadable: true,
    },
  },
  "Monitoring:": {
    punchWatch: {
      flag: "punch-watch",
      kind: onOff,
      default: "on",
      help: "Count of the pairs that punched which of them go on relaying.",
      reloadable: true,
    },
  },
} satisfies OptionGroups;

export type PunchConfig = ValuesOf<typeof punchOptions>;
