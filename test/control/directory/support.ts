/** What the tests of the store share. */
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "bun:test";
import {
  type AppendOptions,
  connectStore,
  NO_ENTRY,
  type Store,
  type StoreOptions,
} from "../../../src/control/directory/store.ts";
import { StoreError } from "../../../src/control/directory/store-error.ts";
import { inTime } from "../../e2e/support/wait.ts";
import { type RedisImplementation, type RedisServer, RedisServers } from "../../support/redis.ts";

export const PREFIX = "test";

/** An entry is added, and none is dropped. */
export const UNTRIMMED: AppendOptions = { trimTo: NO_ENTRY.id };

export type Place = { readonly host: string; readonly port: number };

/** Stores that are closed together. */
export class Stores {
  readonly #stores: Store[] = [];

  async connect(
    servers: Place | readonly Place[],
    options: Partial<StoreOptions> = {},
    first = 0,
  ): Promise<Store> {
    const opening = connectStore(optionsFor(servers, options), first);
    const store = await inTime("the store is connected", opening);
    this.#stores.push(store);
    return store;
  }

  close(): void {
    for (const store of this.#stores.splice(0)) store.close();
  }
}

/**
 * Hooks: one server for all tests of a group, and for each test an emptied one, and a store that
 * reads from it.
 */
export function eachWithStore(
  implementation: RedisImplementation,
  readWaitMs: number,
  made: (server: RedisServer, store: Store) => void,
): { servers: RedisServers; stores: Stores } {
  const servers = new RedisServers(implementation);
  const stores = new Stores();
  let server: RedisServer;
  beforeAll(async () => {
    server = await servers.start();
  });
  afterAll(() => servers.stop());
  beforeEach(async () => {
    await server.command("FLUSHALL");
    made(server, await stores.connect(server, { readWaitMs }));
  });
  afterEach(() => stores.close());
  return { servers, stores };
}

function optionsFor(
  servers: Place | readonly Place[],
  options: Partial<StoreOptions> = {},
): StoreOptions {
  const places = "host" in servers ? [servers] : servers;
  return {
    ...{ servers: places.map(({ host, port }) => ({ host, port })), tls: false, ca: undefined },
    ...{ user: "", password: "", database: 0, prefix: PREFIX, ...options },
  };
}

/** The StoreError that a call rejects with. */
export async function failureOf(call: Promise<unknown>): Promise<StoreError> {
  const error = await inTime(
    "the call fails",
    call.then(
      (value) => new Error(`it does not: ${JSON.stringify(value)}`),
      (reason: unknown) => reason,
    ),
  );
  expect(error).toBeInstanceOf(StoreError);
  const { message } = error as StoreError;
  expect(message).toStartWith("directory ");
  expect(message).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
  return error as StoreError;
}

/** Why nothing connects. */
export async function whyNotConnected(
  servers: Place | readonly Place[],
  options: Partial<StoreOptions> = {},
): Promise<StoreError> {
  const opening = connectStore(optionsFor(servers, options));
  void opening.then(
    (store) => store.close(),
    () => {},
  );
  return failureOf(opening);
}
