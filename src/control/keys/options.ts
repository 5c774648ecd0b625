/** The options of the keys. */
import { orWord, path } from "../../config/kinds.ts";
import type { OptionGroups, ValuesOf } from "../../config/option.ts";

export const keysOptions = {
  "Nodes' keys:": {
    wssKeys: {
      flag: "wss-keys",
      kind: orWord("off", path),
      default: "off",
      help: "JSON file with the nodes' public keys; without it the registry is asked.",
      reloadable: true,
    },
  },
} satisfies OptionGroups;

export type KeysConfig = ValuesOf<typeof keysOptions>;
