/** The admin token: authorises changes through HTTP, and reads from other hosts. */
import { createHash, randomInt, timingSafeEqual } from "node:crypto";
import type { Logger } from "pino";
import { type Clock, CoarseClock } from "../../../ffi/clock.ts";
import { endpointOf } from "../../../ffi/endpoint.ts";
import { isExposed, readBounded } from "../../config/file.ts";
import { ConfigError, shown } from "../../config/units.ts";
import { addressHash } from "../../shared/hash.ts";
import { RateLimitOwner } from "../../shared/limits.ts";
import { ThrottledLog } from "../kit/throttled-log.ts";
import type { AdminConfig } from "./options.ts";

/** The bound keeps a wrong path from being read whole. */
const FILE_BYTES_MAX = 4096;
/** Less could be guessed; base64 of 12 random bytes. */
const CHARS_MIN = 16;
const TOKEN = /^[!-~]+$/;

/** Wrong tokens a second from an address, ten at once; a right one always counts. */
const WRONG_PER_S = 1;
const WRONG_BURST = 10;
/** 64 KiB. */
const SOURCE_LINES = 2 ** 10;

/** The token, of which only a hash is kept. */
export class AdminToken {
  readonly #hash: Buffer;

  private constructor(
    token: string,
    /** Whether others than its owner may read the file. */
    readonly isExposed: boolean,
  ) {
    this.#hash = hashOf(token);
  }

  /** @throws ConfigError that names the file, and never what is in it */
  static read(path: string): AdminToken {
    const token = new TextDecoder()
      .decode(readBounded(path, "the admin token file", FILE_BYTES_MAX))
      .trim();
    if (token.length < CHARS_MIN || !TOKEN.test(token))
      throw new ConfigError(
        `${shown(path)}: the admin token must be at least ${CHARS_MIN} characters of printable ASCII without spaces`,
      );
    return new AdminToken(token, isExposed(path));
  }

  /** Takes as long for every text of the same length. @param authorization the header, or null */
  isIn(authorization: string | null): boolean {
    const [, token = ""] = /^Bearer +([!-~]+)$/i.exec(authorization ?? "") ?? [];
    return timingSafeEqual(hashOf(token), this.#hash);
  }
}

function hashOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

/** Result of a token check; "none": no token is configured, so nothing can be changed. */
export type Permission = "granted" | "none" | "wrong" | "limited";

export class Admin {
  /** The token in force, undefined for none. */
  token: AdminToken | undefined;
  /** Requests that need the token to read: "auto" exempts this host's own programs. */
  auth: AdminConfig["adminAuth"] = "auto";
  readonly #wrong = RateLimitOwner.ofThisThread(SOURCE_LINES);
  readonly #secret = randomInt(2 ** 32) | 0;
  readonly #complaints: ThrottledLog;

  constructor(
    log: Logger,
    private readonly clock: Clock = new CoarseClock(),
  ) {
    this.#complaints = new ThrottledLog(log);
    this.#wrong.set(WRONG_PER_S, WRONG_BURST);
  }

  /** @param authorization the header, or null @param address whose request it is */
  permission(authorization: string | null, address: string): Permission {
    if (this.token === undefined) return "none";
    const source = addressHash(endpointOf(address, 0), 0, this.#secret);
    const nowNs = this.clock.nowNs();
    if (this.token.isIn(authorization)) return "granted";
    // Who gives none guesses nothing.
    if (authorization !== null && this.#wrong.take(source, 1, nowNs) === 0) return "limited";
    this.#complaints.warn(
      "token",
      `a request of ${address} needed the admin token, and had none or a wrong one`,
    );
    return "wrong";
  }
}
