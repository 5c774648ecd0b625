/** The bridge's certificate and key, read from files and checked before they are used. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { createSecureContext } from "node:tls";
import { readBounded } from "../../config/file.ts";
import { ConfigError, shown } from "../../config/units.ts";

/** Limit of a PEM file; a chain has some thousand bytes. */
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
    throw new ConfigError(
      `${shown(keyPath)}: is not the key of the certificate in ${shown(certPath)}`,
    );
  // Gives the pair to the server's TLS, which is stricter than the checks above.
  parse(certPath, "holds a certificate that TLS does not accept", () =>
    createSecureContext({ cert, key }),
  );
  return { cert, key };
}

/** Part of a certificate's lifetime in which to warn: nine days of ninety. */
const EXPIRY_WARNING_PART = 0.1;

/** @returns a sentence about a certificate that clients refuse now or soon, else undefined */
export function expiryOf({ cert }: TlsFiles, nowMs: number): string | undefined {
  const [{ validFromDate, validToDate }] = certificatesIn(cert) as [X509Certificate];
  const [fromMs, untilMs] = [validFromDate.getTime(), validToDate.getTime()];
  const day = (ms: number) =>
    new Date(ms).toISOString().slice(0, "2026-11-30T12:00".length).replace("T", " ");
  if (nowMs < fromMs)
    return `the certificate is valid from ${day(fromMs)} UTC: set this host's clock, or wait`;
  if (nowMs > untilMs) return `the certificate expired on ${day(untilMs)} UTC: renew it`;
  if (untilMs - nowMs < (untilMs - fromMs) * EXPIRY_WARNING_PART)
    return `the certificate expires on ${day(untilMs)} UTC: renew it`;
  return undefined;
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
