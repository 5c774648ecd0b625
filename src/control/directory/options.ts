/** The options of the directory. */
import { duration, orWord, parsedBy, path } from "../../config/kinds.ts";
import type { NameOf, OptionGroups, ValuesOf } from "../../config/option.ts";
import { ConfigError, isWildcard, parseDirectory, parseHostPort } from "../../config/units.ts";
import type { MeshConfig } from "../mesh/options.ts";
import type { SocketsConfig } from "../sockets/options.ts";

const keyPrefix = parsedBy("text", (text) => {
  if (!/^[\w.:-]{1,64}$/.test(text))
    throw new ConfigError("must be 1 to 64 of the characters A-Z a-z 0-9 . _ : -");
});

export const directoryOptions = {
  "Directory:": {
    /** "redis://…" or "rediss://…" for parseDirectory. */
    directory: {
      flag: "directory",
      kind: orWord("off", parsedBy("url", parseDirectory)),
      default: "off",
      help:
        "Redis or Valkey that the fleet shares its routes in: redis://host:port, or rediss:// for TLS; " +
        "several with commas between. Needs --beacon-id.",
      // up to where user and password end, or all that is left where that was cut off
      secretPart: /(?<=^"?)(?!").*(?:@|…$)/s,
    },
    directoryCaFile: {
      flag: "directory-ca-file",
      kind: orWord("off", path),
      default: "off",
      help: "PEM file with the certificates to trust in place of the system's. Needs rediss://.",
    },
    directoryAuthFile: {
      flag: "directory-auth-file",
      kind: orWord("off", path),
      default: "off",
      help: "File with the password, or with the user on its first line and the password on its second.",
    },
    directoryPrefix: {
      flag: "directory-prefix",
      kind: keyPrefix,
      default: "pilot-beacon",
      help: "What the names of all keys begin with, in braces: one for each fleet.",
    },
    directoryGraceMs: {
      flag: "directory-grace",
      kind: duration("0s", "24h"),
      default: "5m",
      help: "While the directory is away, keep routes this much longer than their lease.",
    },
    directoryLeaseMs: {
      flag: "directory-lease",
      kind: duration("3s", "5m"),
      default: "10s",
      help: "Withdraw the routes of a beacon that the directory has not heard for this long.",
    },
  },
} satisfies OptionGroups;

export type DirectoryConfig = ValuesOf<typeof directoryOptions> &
  Pick<MeshConfig, "beaconId" | "advertiseAddr" | "maxRoutes">;

export function checkDirectory(
  config: DirectoryConfig & Pick<SocketsConfig, "addr">,
  nameOf: NameOf<DirectoryConfig & SocketsConfig>,
): void {
  const { directory, directoryCaFile, beaconId, advertiseAddr, addr } = config;
  if (directory !== "off" && beaconId === 0)
    throw new ConfigError(
      `${nameOf("directory")} needs ${nameOf("beaconId")}: a number other than 0, its own for each beacon`,
    );
  if (directoryCaFile !== "off" && !directory.startsWith("rediss:"))
    throw new ConfigError(
      `${nameOf("directoryCaFile")} needs ${nameOf("directory")} to be rediss://`,
    );
  if (directory !== "off" && advertiseAddr === "auto" && isWildcard(parseHostPort(addr).host))
    throw new ConfigError(
      `${nameOf("directory")} needs ${nameOf("advertiseAddr")} where ${nameOf("addr")} is every address: others have to be told of one`,
    );
}
