/** The options of the admin. */
import { bindAddress, oneOf, orWord, path } from "../../config/kinds.ts";
import type { OptionGroups, ValuesOf } from "../../config/option.ts";

export const adminOptions = {
  "Monitoring:": {
    http: {
      flag: "http",
      alias: "health",
      kind: orWord("off", bindAddress),
      default: "127.0.0.1:9002",
      help: "Address of the health and metrics server.",
    },
    adminTokenFile: {
      flag: "admin-token-file",
      kind: orWord("off", path),
      default: "off",
      help: "File with the token that lets its bearer change things through HTTP.",
      reloadable: true,
    },
    adminAuth: {
      flag: "admin-auth",
      kind: oneOf(["auto", "always"]),
      default: "auto",
      help: "Ask readers of the admin API for the token; auto: not this host's own programs.",
      reloadable: true,
    },
  },
} satisfies OptionGroups;

export type AdminConfig = ValuesOf<typeof adminOptions> & {
  /** Nobody asked for this http address: warn instead of failing when it is taken. */
  readonly httpIsDefault: boolean;
};
