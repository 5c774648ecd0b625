/** What the store is told of the configuration, with what the files hold that it names. */
import { isExposed, readBounded } from "../../config/file.ts";
import { ConfigError, parseDirectory, shown } from "../../config/units.ts";
import { certificatesIn } from "../kit/certificates.ts";
import type { DirectoryConfig } from "./options.ts";
import type { StoreOptions } from "./store.ts";

/** Limit of the CA file: the system's whole list has 200 to 300 KiB. */
const CA_BYTES_MAX = 1 << 20;
/** A user and a password; the same. */
const AUTH_BYTES_MAX = 4096;

export interface DirectoryStoreOptions extends StoreOptions {
  /** Whether others than its owner may read the file with the password. */
  readonly authFileExposed: boolean;
}

type StoreConfig = Pick<
  DirectoryConfig,
  "directory" | "directoryCaFile" | "directoryAuthFile" | "directoryPrefix"
>;

/**
 * Reads the files anew, so that a password can be changed while the beacon runs: for each
 * connection, one call.
 * @param config with a directory
 * @throws ConfigError that names the file, and never what it holds
 */
export function storeOptions(config: StoreConfig): DirectoryStoreOptions {
  const { directory, directoryCaFile, directoryAuthFile, directoryPrefix } = config;
  return {
    ...parseDirectory(directory),
    ca: directoryCaFile === "off" ? undefined : readCertificates(directoryCaFile),
    ...readAuth(directoryAuthFile),
    prefix: directoryPrefix,
  };
}

function readCertificates(path: string): string {
  const pem = new TextDecoder().decode(readBounded(path, "the directory's CA file", CA_BYTES_MAX));
  try {
    certificatesIn(pem);
  } catch {
    throw new ConfigError(`${shown(path)}: holds no certificate in PEM, or one that is damaged`);
  }
  return pem;
}

function readAuth(path: string | "off"): {
  user: string;
  password: string;
  authFileExposed: boolean;
} {
  if (path === "off") return { user: "", password: "", authFileExposed: false };
  const text = decoded(readBounded(path, "the directory's password file", AUTH_BYTES_MAX));
  const lines = text?.replace(/(\r?\n)+$/, "").split(/\r?\n/) ?? [];
  const password = lines.pop();
  const user = lines.pop() ?? "";
  if (!password || lines.length > 0 || /\p{Cc}/u.test(user + password))
    throw new ConfigError(
      `${shown(path)}: must hold the directory's password in one line of text, or the user in one and the password in the next`,
    );
  return { user, password, authFileExposed: isExposed(path) };
}

/** undefined: no UTF-8 */
function decoded(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
