/** Statistics of the API, validated before use: the other end may be any server. */
import * as v from "valibot";
import type { Stats } from "../features.ts";
import { ApiError } from "./api.ts";

const counts = v.record(v.string(), v.number());
const state = v.picklist(["on", "off"]);

/** What src/view/rates.ts reads of a row of counts. */
const packetEntries = {
  packetsReceived: counts,
  malformed: counts,
  nodesRefused: counts,
  limited: counts,
  switchedOff: counts,
  punches: counts,
  relayForwarded: counts,
  relayNotFound: v.number(),
  relayDropped: counts,
  repliesSent: v.number(),
  replyDropped: counts,
  gossipRejected: counts,
  receivedBytes: v.number(),
  sentBytes: v.number(),
  receiveBatch: v.looseObject({ calls: v.number(), messages: v.number() }),
  offloadSegments: v.looseObject({ received: v.number(), sent: v.number() }),
};

const statsSchema = v.looseObject({
  version: v.string(),
  beaconId: v.number(),
  address: v.looseObject({ address: v.string(), port: v.number() }),
  uptimeS: v.number(),
  healthy: v.boolean(),
  notReady: v.nullish(v.string()),
  warnings: v.nullish(v.array(v.string())),
  nodes: v.number(),
  nodesMax: v.number(),
  cpuS: v.nullable(v.number()),
  mesh: v.looseObject({
    peers: v.array(
      v.looseObject({
        address: v.string(),
        routes: v.number(),
        gossipAgeS: v.nullable(v.number()),
        isInDirectory: v.nullish(v.boolean()),
        check: v.nullish(
          v.looseObject({ sent: v.number(), lost: v.number(), lastRttMs: v.nullable(v.number()) }),
        ),
      }),
    ),
  }),
  directory: v.nullish(
    v.looseObject({
      state: v.string(),
      stateS: v.number(),
      server: v.nullable(v.string()),
      roundTripS: v.nullable(v.number()),
      beacons: v.array(v.looseObject({ state: v.string() })),
      lag: v.looseObject({ bounds: v.array(v.number()), counts: v.array(v.number()) }),
    }),
  ),
  breakers: v.record(v.string(), state),
  workers: v.array(
    v.looseObject({
      ...packetEntries,
      worker: v.number(),
      alive: v.boolean(),
      restarts: v.number(),
      socketReceiveDrops: v.nullable(v.number()),
      cpuS: v.nullable(v.number()),
    }),
  ),
  bridge: v.nullable(
    v.looseObject({
      peers: v.number(),
      listening: v.boolean(),
      packets: v.looseObject(packetEntries),
    }),
  ),
  grants: v.nullable(v.looseObject(packetEntries)),
});

/** @throws ApiError that names what is missing, or of another kind */
export function statsOf(value: unknown, url: URL): Stats {
  return checked(statsSchema, value, url) as unknown as Stats;
}

/** The value as the schema has it. @throws ApiError that names the first wrong place */
export function checked<T extends v.GenericSchema>(
  schema: T,
  value: unknown,
  url: URL,
): v.InferOutput<T> {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const place = v.getDotPath(result.issues[0]) ?? "all of it";
  throw new ApiError(
    "unreachable",
    `${url}: what it answers is not understood (${place}): is that beacon of another version than this program?`,
  );
}
