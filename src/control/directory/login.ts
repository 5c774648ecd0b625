import type { Lookup } from "../kit/names.ts";

/** How one enters a server. */
export interface Login {
  readonly tls: boolean;
  /** PEM of those whose certificates are trusted; undefined: the system's. */
  readonly ca: string | undefined;
  /** "" is the server's default user. */
  readonly user: string;
  /** "" is none. */
  readonly password: string;
  /** How long it may take until the first command can be sent. Default: 5000. */
  readonly connectMs?: number;
  /** Ends it before then. */
  readonly signal?: AbortSignal;
  /** Default: the system's hosts file and name servers. */
  readonly lookup?: Lookup;
  /** How long any command may take. Default: 5000. */
  readonly answerMs?: number;
}
