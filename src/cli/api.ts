/** The admin API from outside (docs/API.md): requests, and what goes wrong with them in words. */
import { readBounded } from "../config/file.ts";
import {
  ConfigError,
  parseHostNamePort,
  parseHostPort,
  shown,
  withReason,
} from "../config/units.ts";
import { printable } from "./text.ts";

/** Refusals of beacons without an API version; others without one come from a proxy. */
const IS_OLDER_BEACONS =
  /^(?:the admin token|too many wrong tokens|not found: there are|only \w+ is answered)/;

/** The version of the admin API that these commands understand. */
export const API_VERSION = "1";

export const API_DEFAULT = "127.0.0.1:9002";

/** A beacon answers in milliseconds, and a page of nodes in seconds. */
const TIMEOUT_MS = 15_000;
/** The new program has to read its state and start first. */
export const UPGRADE_TIMEOUT_MS = 180_000;
/** Lines come once a second. */
const SILENCE_MS = 10_000;
/** Limit of an answer's size: ten pages of 10,000 nodes. */
const ANSWER_BYTES_MAX = 16 << 20;
const TOKEN_FILE_BYTES_MAX = 4096;
const ERROR_CHARS_MAX = 200;

/** unreachable: no beacon answers. forbidden: wrong token. refused: the beacon says no. */
export type Trouble = "unreachable" | "forbidden" | "refused";

export class ApiError extends Error {
  override readonly name = "ApiError";

  /** @param message one line that names what failed, and what to do */
  constructor(
    readonly trouble: Trouble,
    message: string,
  ) {
    super(message);
  }
}

export interface Access {
  readonly http?: string | undefined;
  readonly adminTokenFile?: string | undefined;
}

/**
 * Where the API is.
 * @param text "host:port" as the server's --http has it, or a URL. Every address of a host
 * (":9002") is meant as this host.
 * @throws ConfigError, without saying where the text came from
 */
export function apiUrl(text: string): URL {
  if (text === "off")
    throw new ConfigError("that beacon serves no HTTP; name one that does with --http");
  if (/^https?:\/\//i.test(text)) {
    const url = URL.parse(text);
    if (url === null || url.username !== "") throw new ConfigError("must be host:port or a URL");
    if (!url.pathname.endsWith("/")) url.pathname += "/";
    return url;
  }
  const unspecified = /^(?:0\.0\.0\.0|\[::\]|):\d+$/.test(text);
  const { host, port } = unspecified ? parseHostPort(text) : parseHostNamePort(text);
  if (port === 0)
    throw new ConfigError("port 0 is none to ask at; name the one that the beacon got");
  const named = host === "" || host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return new URL(`http://${named.includes(":") ? `[${named}]` : named}:${port}/`);
}

export class Api {
  readonly #token: string | undefined;

  /** @throws ConfigError when the token's file cannot be used */
  constructor(
    readonly url: URL,
    tokenFile?: string,
  ) {
    this.#token = tokenFile === undefined ? undefined : readToken(tokenFile);
  }

  /** @throws ConfigError that names what was given: a flag, or else a variable */
  static from(
    { http, adminTokenFile }: Access,
    env: Readonly<Record<string, string | undefined>>,
  ): Api {
    const [where, text] =
      http === undefined ? ["BEACON_HTTP=", env["BEACON_HTTP"] || API_DEFAULT] : ["--http ", http];
    const url = withReason(
      () => apiUrl(text),
      (reason) => `${where}${shown(text)}: ${reason}`,
    );
    const file = adminTokenFile ?? (env["BEACON_ADMIN_TOKEN_FILE"] || undefined);
    return new Api(url, file === "off" ? undefined : file);
  }

  /** A value that the API tells. @throws ApiError */
  async get(path: string): Promise<unknown> {
    return parsed(await this.#text("GET", path, TIMEOUT_MS), this.url);
  }

  /** @throws ApiError */
  async post(path: string, timeoutMs = TIMEOUT_MS): Promise<unknown> {
    return parsed(await this.#text("POST", path, timeoutMs), this.url);
  }

  /** Text and status of /healthz or /readyz, of which 503 is an answer. @throws ApiError */
  async plain(path: string): Promise<{ ok: boolean; text: string }> {
    const response = await this.#fetch("GET", path, AbortSignal.timeout(TIMEOUT_MS));
    if (response.status !== 200 && response.status !== 503)
      throw notBeacon(this.url, response.status);
    return { ok: response.ok, text: oneLine(await this.#body(response)) };
  }

  /**
   * Values of a path that tells them again and again, a line each. Ends when the other end ends it.
   * @throws ApiError also when nothing comes for ten seconds
   */
  async *lines(path: string): AsyncGenerator<unknown> {
    const abort = new AbortController();
    let timer = setTimeout(() => abort.abort(), SILENCE_MS);
    try {
      const response = await this.#answer("GET", path, abort.signal);
      const decoder = new TextDecoder();
      let rest = "";
      for await (const bytes of response.body ?? []) {
        clearTimeout(timer);
        timer = setTimeout(() => abort.abort(), SILENCE_MS);
        const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
        rest = lines.pop()!;
        if (rest.length > ANSWER_BYTES_MAX) throw notUnderstood(this.url);
        for (const line of lines) yield parsed(line, this.url);
      }
    } catch (error) {
      throw this.#inWords(error);
    } finally {
      clearTimeout(timer);
      abort.abort();
    }
  }

  async #text(method: string, path: string, timeoutMs: number): Promise<string> {
    return this.#body(await this.#answer(method, path, AbortSignal.timeout(timeoutMs)));
  }

  /** An answer that is right, and of an API that is understood. */
  async #answer(method: string, path: string, signal: AbortSignal): Promise<Response> {
    const response = await this.#fetch(method, path, signal);
    const { status } = response;
    const api = response.headers.get("beacon-api");
    if (api !== null && api !== API_VERSION)
      throw new ApiError(
        "unreachable",
        `${this.url}: speaks version ${printable(api.slice(0, 20))} of the admin API, this program ${API_VERSION}: use the program of the beacon's version`,
      );
    if (response.ok && api === null) throw notBeacon(this.url, status);
    if (response.ok) return response;
    const said = oneLine(await this.#body(response));
    if (api === null && !IS_OLDER_BEACONS.test(said)) throw notBeacon(this.url, status);
    if (status === 401 || status === 403 || status === 429)
      throw new ApiError(
        "forbidden",
        `${this.url}: ${said} (${status}): ${this.#tokenHint(status)}`,
      );
    if (status === 503) throw new ApiError("refused", `${this.url}${path}: ${said}; try again`);
    if (said.startsWith("not found: there are"))
      throw new ApiError(
        "refused",
        `${this.url}${path}: that beacon has no such thing: it may be older than this program`,
      );
    throw new ApiError("refused", `${path}: ${said} (${status})`);
  }

  #tokenHint(status: number): string {
    if (status === 403) return "start the beacon with --admin-token-file";
    if (status === 429) return "wait ten seconds, then give the right one";
    return this.#token === undefined
      ? "give it with --admin-token-file"
      : "what --admin-token-file names is not this beacon's";
  }

  async #fetch(method: string, path: string, signal: AbortSignal): Promise<Response> {
    const headers: Record<string, string> =
      this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` };
    try {
      // Not elsewhere: the token is for nobody else.
      return await fetch(new URL(path, this.url), { method, headers, signal, redirect: "manual" });
    } catch (error) {
      throw this.#inWords(error);
    }
  }

  async #body(response: Response): Promise<string> {
    const decoder = new TextDecoder();
    let text = "";
    try {
      for await (const bytes of response.body ?? []) {
        text += decoder.decode(bytes, { stream: true });
        if (text.length > ANSWER_BYTES_MAX) throw notUnderstood(this.url);
      }
    } catch (error) {
      throw this.#inWords(error);
    }
    return text;
  }

  #inWords(error: unknown): ApiError {
    if (error instanceof ApiError) return error;
    const { code, name } = error as { code?: string; name?: string };
    if (name === "TimeoutError" || name === "AbortError")
      return new ApiError("unreachable", `${this.url}: no answer in time`);
    if (code === "ConnectionRefused" || code === "ECONNREFUSED")
      return new ApiError(
        "unreachable",
        `${this.url}: connection refused: no beacon runs there, or its --http is another; name it with --http`,
      );
    const reason = code ?? (error instanceof Error ? error.message : String(error));
    return new ApiError("unreachable", `${this.url}: no connection (${printable(String(reason))})`);
  }
}

function readToken(path: string): string {
  const token = new TextDecoder()
    .decode(readBounded(path, "the admin token file", TOKEN_FILE_BYTES_MAX))
    .trim();
  if (!/^[!-~]+$/.test(token)) throw new ConfigError(`${shown(path)}: holds no admin token`);
  return token;
}

function parsed(text: string, url: URL): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw notUnderstood(url);
  }
  if (typeof value !== "object" || value === null) throw notUnderstood(url);
  return value;
}

function oneLine(text: string): string {
  return printable(text.trim().slice(0, ERROR_CHARS_MAX));
}

/** Error for an address with another service, or a proxy that does not pass requests on. */
function notBeacon(url: URL, status: number): ApiError {
  const kind = status === 200 ? "" : ` (${status})`;
  return new ApiError(
    "unreachable",
    `${url}: answers, but not as a beacon${kind}: is the address right, or a proxy in between?`,
  );
}

function notUnderstood(url: URL): ApiError {
  return new ApiError("unreachable", `${url}: what it answers is no answer of a beacon`);
}
