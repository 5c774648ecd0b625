/** A server's address, resolved for each connection: Bun's client caches it for 30 s. */
import { isIP } from "node:net";
import type { HostPort } from "../../config/units.ts";
import { connectTo, type Found, lookupName, NameError } from "../kit/names.ts";
import type { Login } from "./login.ts";
import { CLOSED_BY_US, ofServer, type ServerName } from "./store-error.ts";

/** How long the addresses of a name with several may take to show which is reachable. */
const CHOICE_MS = 4_000;

export interface Target {
  /** Never a name. */
  readonly address: string;
  readonly port: number;
  /** The name that the server's certificate has to be for; undefined: the address. */
  readonly servername: string | undefined;
}

/** @throws StoreError for a name without an address */
export async function targetOf(
  { host, port }: HostPort,
  name: ServerName,
  login: Login,
): Promise<Target> {
  if (isIP(host) !== 0) return { address: host, port, servername: undefined };
  const { lookup = lookupName, signal } = login;
  let found: Found;
  try {
    found = await lookup(host, signal);
  } catch (error) {
    if (!(error instanceof NameError)) throw error;
    const reason = signal?.aborted
      ? CLOSED_BY_US
      : `no such host (${error.code}): check --directory, and this host's DNS`;
    throw ofServer(name, "unreachable", reason);
  }
  const { addresses } = found;
  const address =
    addresses.length === 1 ? undefined : await reachable({ host, port }, found, signal);
  return { address: address ?? addresses[0]!, port, servername: host };
}

/** Returns the first of several addresses that accepts; undefined after the timeout. */
async function reachable(
  server: HostPort,
  found: Found,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const giveUp = () => resolve(undefined);
  const socket = connectTo(server, undefined, async () => found);
  const timer = setTimeout(giveUp, CHOICE_MS);
  signal?.addEventListener("abort", giveUp);
  if (signal?.aborted) giveUp();
  socket.on("connect", () => resolve(socket.remoteAddress));
  socket.on("error", giveUp);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", giveUp);
    socket.destroy();
  }
}
