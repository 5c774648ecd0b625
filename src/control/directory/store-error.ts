/** Failures of the directory's server: a word for metrics, and a line for the log. */
import { quoted } from "../../config/units.ts";

/**
 * - unreachable: there is no connection, or none any more
 * - slow: no answer in time, or the server says that it is busy
 * - denied: a password, a user or the user's rights
 * - read_only: a replica
 * - full: it takes no writes for now; reading goes on
 * - refused: it is of no use to us: a Sentinel, a cluster's wrong node, too old
 * - malformed: not what was asked for, or more
 */
export const STORE_FAILURES = [
  "unreachable",
  "slow",
  "denied",
  "read_only",
  "full",
  "refused",
  "malformed",
] as const;
export type StoreFailure = (typeof STORE_FAILURES)[number];

/** A server's failure. The message, which never holds the password, says what to do. */
export class StoreError extends Error {
  override readonly name = "StoreError";

  constructor(
    readonly failure: StoreFailure,
    message: string,
    /** Whether nothing more can be had over the connection. */
    readonly endsConnection = true,
  ) {
    super(message);
  }
}

export const CLOSED_BY_US = "closed by this beacon";
export const WRONG_PROGRAM = "is this a Redis or Valkey server? check --directory";

/** Which server, and how one has to talk of it. */
export interface ServerName {
  /** "host:port". */
  readonly server: string;
  /** What no message may hold; "" is nothing. */
  readonly secret: string;
}

/** What went wrong with which server. */
export function ofServer(
  { server }: ServerName,
  failure: StoreFailure,
  message: string,
  endsConnection = true,
): StoreError {
  return new StoreError(failure, `directory ${server}: ${message}`, endsConnection);
}

interface Verdict {
  readonly failure: StoreFailure;
  readonly advice: string;
  /** The connection is good for other commands, or for the same later on. */
  readonly goesOn?: true;
}

const REPLICA: Verdict = {
  failure: "read_only",
  advice: "it is a replica: name the primary, too, in --directory",
};
const OTHER_NODE: Verdict = {
  failure: "refused",
  advice: "name all nodes of the cluster in --directory, with commas between",
};
const TRY_LATER: Verdict = { failure: "slow", advice: "it is tried again" };
const NO_WRITES = (advice: string): Verdict => ({ failure: "full", advice, goesOn: true });
const TOO_OLD: Verdict = { failure: "refused", advice: "Redis 6.2 or later, or Valkey, is needed" };

/** By the word that an error begins with. */
const verdicts = new Map<string, Verdict>([
  [
    "NOAUTH",
    { failure: "denied", advice: "name a file with the password in --directory-auth-file" },
  ],
  ["WRONGPASS", { failure: "denied", advice: "check --directory-auth-file" }],
  ["NOPERM", { failure: "denied", advice: "let the user do that (ACL SETUSER)", goesOn: true }],
  [
    "DENIED",
    { failure: "denied", advice: "give the server a password, or have it let this host in" },
  ],
  ["READONLY", REPLICA],
  ["MASTERDOWN", REPLICA],
  ["UNBLOCKED", REPLICA], // what waits for entries is told so when the server becomes a replica
  ["OOM", NO_WRITES("raise its maxmemory")],
  ["MISCONF", NO_WRITES("see its log: it cannot save what it holds")],
  ["NOREPLICAS", NO_WRITES("see to its replicas")],
  ["MOVED", OTHER_NODE],
  ["ASK", OTHER_NODE],
  ["TRYAGAIN", TRY_LATER],
  ["CLUSTERDOWN", { failure: "refused", advice: "see to the cluster" }],
  ["LOADING", TRY_LATER],
  ["BUSY", TRY_LATER],
  [
    "WRONGTYPE",
    {
      failure: "malformed",
      advice: "others use that key: choose another --directory-prefix",
      goesOn: true,
    },
  ],
  ["NOPROTO", TOO_OLD],
]);

/** What an error that the server answered comes to. `command` is the command's name. */
export function errorOfReply(name: ServerName, command: string, text: string): StoreError {
  const { failure, advice, goesOn = false } = verdictOf(command, text);
  return ofServer(
    name,
    failure,
    `answers ${command} with ${heard(name, text)}: ${advice}`,
    !goesOn,
  );
}

function verdictOf(command: string, text: string): Verdict {
  const verdict = verdicts.get(/^[A-Z]+/.exec(text)?.[0] ?? "");
  if (verdict) return verdict;
  if (/^ERR (unknown (sub)?command|syntax error)/i.test(text)) return TOO_OLD;
  if (/^ERR max number of clients/.test(text))
    return { failure: "slow", advice: "raise its maxclients" };
  const advice =
    command === "SELECT" ? "check the database in --directory" : "see the server's log";
  return { failure: "refused", advice };
}

/** Quotes text of the server, which may repeat the password, or a part of it. */
export function heard({ secret }: ServerName, text: string): string {
  const said = text.replace(/,? with args beginning with.*/s, "").trim();
  const shown = quoted(said);
  const tells = secret !== "" && (said.includes(secret) || shown.includes(secret));
  return tells ? "a text that repeats the password" : shown;
}
