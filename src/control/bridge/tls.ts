/** The bridge's certificate and key, read from files and checked before they are used. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readBounded } from "../../config/file.ts";
import { ConfigError, shown } from "../../config/units.ts";

/** A chain of certificates has some thousand; the bound keeps a wrong path from being read whole. */
const PEM_BYTES_MAX = 1 << 20;

/** PEM texts, which belong together. */
export interface TlsFiles {
  /** The server's certificate first, then those that lead to its root. */
  readonly cert: string;
  readonly key: string;
}

/** @throws ConfigError that names the file, and never what is in it */
export function readTlsFiles(certPath: string, keyPath: string): TlsFiles {
  const cert = read(certPath, "the certificate");
  const key = read(keyPath, "the key");
  const [certificate] = parse(certPath, "holds no certificate in PEM, or one that is damaged", () =>
    certificatesIn(cert),
  );
  const privateKey = parse(keyPath, "holds no private key in PEM without a password", () =>
    createPrivateKey(key),
  );
  if (!certificate!.checkPrivateKey(privateKey))
    throw new ConfigError(`${shown(keyPath)}: is not the key of the certificate in ${shown(certPath)}`);
  return { cert, key };
}

/** All of a chain, at least one. @throws Error when one is damaged, or there is none */
export function certificatesIn(pem: string): X509Certificate[] {
  const [, ...blocks] = pem.split("-----BEGIN CERTIFICATE-----");
  if (blocks.length === 0) throw new Error("no certificate");
  return blocks.map((block) => new X509Certificate(`-----BEGIN CERTIFICATE-----${block}`));
}

function read(path: string, what: string): string {
  return new TextDecoder().decode(readBounded(path, what, PEM_BYTES_MAX));
}

function parse<T>(path: string, otherwise: string, parser: () => T): T {
  try {
    return parser();
  } catch {
    throw new ConfigError(`${shown(path)}: ${otherwise}`);
  }
}
