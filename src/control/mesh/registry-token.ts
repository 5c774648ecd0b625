/** The token that a registry may ask of beacons. */
import { readBounded } from "../../config/file.ts";
import { check, token } from "../../config/kinds.ts";
import { ConfigError, shown, withReason } from "../../config/units.ts";
import type { MeshConfig } from "./options.ts";

/** A few of the longest tokens; the bound keeps a wrong path from being read whole. */
const FILE_BYTES_MAX = 4096;

/** @returns the file's or option's token, or "" @throws ConfigError that names the file */
export function readAdminToken({
  registryAdminToken,
  registryAdminTokenFile: path,
}: MeshConfig): string {
  if (path === "off") return registryAdminToken;
  const text = new TextDecoder().decode(readBounded(path, "the token file", FILE_BYTES_MAX)).trim();
  if (text === "") throw new ConfigError(`${shown(path)}: the token file is empty`);
  return withReason(
    () => check(token, text),
    (reason) => `${shown(path)}: the token in it ${reason}`,
  );
}
