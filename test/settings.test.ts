/** What options ask of each other, and what of them may change while a beacon runs. */
import { afterAll, describe, expect, test } from "bun:test";
import {
  type Config,
  compareConfigs,
  defaultConfig,
  flagOf,
  type Property,
  reloadedConfig,
  validateConfig,
} from "../src/config.ts";
import type { features } from "../src/features.ts";
import { settings } from "../src/settings.ts";
import { refusal, run, temporaryFiles } from "./config/support.ts";

const { file, remove } = temporaryFiles();
afterAll(remove);

/** For each property, a value that is not its default. */
const others: Omit<Config, "httpIsDefault"> = {
  addr: ":1",
  beaconId: 7,
  logLevel: "warn",
  logFormat: "json",
  http: ":2",
  workers: defaultConfig.workers + 1,
  maxNodes: 7,
  nodeTtlMs: 7000,
  offload: false,
  steering: false,
  sourceAddress: "off",
  batchMax: 7,
  recvBufferBytes: 70_000,
  sendBufferBytes: 70_000,
  peers: ["b2:1"],
  gossipIntervalMs: 7000,
  peerTimeoutMs: 70_000,
  maxRoutes: 7,
  registry: "r:7",
  registryIntervalMs: 7000,
  registryAdminToken: "s3cret",
  registryAdminTokenFile: "/run/token",
  advertiseAddr: "b1:1",
  directory: "rediss://r7",
  directoryCaFile: "/etc/beacon/ca.pem",
  directoryAuthFile: "/etc/beacon/directory.auth",
  directoryPrefix: "p7",
  directoryGraceMs: 7000,
  directoryLeaseMs: 7000,
  wss: ":3",
  wssTlsCert: "/etc/beacon/chain.pem",
  wssTlsKey: "/etc/beacon/key.pem",
  wssMaxPeers: 7,
  wssTrustedProxies: ["10.0.0.0/8"],
  wssKeys: "/var/lib/beacon/keys.json",
  drainMs: 7,
  stateFile: "/var/lib/beacon/nodes",
  stateIntervalMs: 7000,
  maxPeerRoutes: 7,
  gossipStrict: "off",
  gossipKeyFile: "/etc/beacon/gossip.key",
  wssUpgradeLimit: 7,
  wssFailureLimit: 7,
  relayLimit: 7,
  relayAddressLimit: 7,
  punchSourceLimit: 7,
  punchLimit: 7,
  punchAllow: ["*"],
  endpointHoldMs: 7000,
  newNodeLimit: 7,
  answerLimit: 7,
  limitsShadow: true,
  requirePunchGrant: true,
  denyEndpoint: ["10.0.0.0/8"],
  adminTokenFile: "/etc/beacon/admin.token",
  adminAuth: "always",
  punchWatch: false,
  selfCheck: false,
};
const properties = Object.keys(others) as Property[];
const reloadable: readonly Property[] = [
  "peers",
  "gossipIntervalMs",
  "peerTimeoutMs",
  "selfCheck",
  "maxPeerRoutes",
  "gossipStrict",
  "gossipKeyFile",
  "registry",
  "registryIntervalMs",
  "registryAdminToken",
  "registryAdminTokenFile",
  "advertiseAddr",
  "wssTlsCert",
  "wssTlsKey",
  "wssMaxPeers",
  "wssTrustedProxies",
  "wssKeys",
  "wssUpgradeLimit",
  "wssFailureLimit",
  "relayLimit",
  "relayAddressLimit",
  "punchSourceLimit",
  "punchLimit",
  "punchAllow",
  "endpointHoldMs",
  "newNodeLimit",
  "answerLimit",
  "limitsShadow",
  "denyEndpoint",
  "requirePunchGrant",
  "drainMs",
  "adminTokenFile",
  "adminAuth",
  "punchWatch",
  "logLevel",
];

describe("options that do not go together", () => {
  test("a registry needs a beacon id", () => {
    const reason = "a number other than 0, its own for each beacon";
    const message = `--registry needs --beacon-id: ${reason}`;
    expect(refusal(() => run(["--registry", "r:1"]))).toBe(message);
    expect(
      refusal(() => run(["--beacon-id=0"], { BEACON_REGISTRY: "r:1", BEACON_BEACON_ID: "1" })),
    ).toBe(message);
    expect(refusal(() => run(["--config", file({ registry: "r:1" })]))).toBe(message);
    expect(refusal(() => validateConfig({ registry: "r:1" }))).toBe(
      `registry needs beaconId: ${reason}`,
    );
    expect(run(["--registry", "r:1"], { BEACON_BEACON_ID: "1" }).registry).toBe("r:1");
    expect(run(["--registry=off"], { BEACON_REGISTRY: "r:1" }).registry).toBe("off");
    expect(validateConfig({ registry: "r:1", beaconId: 1 }).registry).toBe("r:1");
  });

  test("--admin-auth always needs a token", () => {
    const reason = "without a token nobody could read the API";
    expect(refusal(() => run(["--admin-auth=always"]))).toBe(
      `--admin-auth always needs --admin-token-file: ${reason}`,
    );
    expect(refusal(() => validateConfig({ adminAuth: "always" }))).toBe(
      `adminAuth always needs adminTokenFile: ${reason}`,
    );
    expect(run(["--admin-auth=always", "--admin-token-file=/t"]).adminAuth).toBe("always");
  });

  test("peers get longer than one gossip interval", () => {
    const message = "--peer-timeout: must be longer than --gossip-interval, 10000ms";
    expect(refusal(() => run(["--peer-timeout", "10s"]))).toBe(message);
    expect(refusal(() => run(["--peer-timeout", "1s"]))).toBe(message);
    expect(refusal(() => run(["--gossip-interval=1m"], { BEACON_PEER_TIMEOUT: "1m" }))).toContain(
      "60000ms",
    );
    expect(refusal(() => validateConfig({ peerTimeoutMs: 10_000 }))).toBe(
      "peerTimeoutMs: must be longer than gossipIntervalMs, 10000ms",
    );
    expect(run(["--peer-timeout", "1s", "--gossip-interval", "999ms"]).peerTimeoutMs).toBe(1000);
    expect(validateConfig({ peerTimeoutMs: 10_001 }).peerTimeoutMs).toBe(10_001);
  });
});

describe("compareConfigs", () => {
  test("finds nothing where the values are the same", () => {
    const nothing = { reloaded: [], needRestart: [] };
    expect(compareConfigs(defaultConfig, { ...defaultConfig })).toEqual(nothing);
    const peers = ["--peers", "a:1,b:1"];
    expect(compareConfigs(run(peers), run(peers))).toEqual(nothing);
    expect(compareConfigs(run([]), { ...run([]), httpIsDefault: false })).toEqual(nothing);
    expect(compareConfigs(validateConfig({ drainMs: 0 }), validateConfig({ drainMs: -0 }))).toEqual(
      nothing,
    );
  });

  test("every property is in these tests", () => {
    expect(properties.toSorted()).toEqual(
      [...new Set(settings.map(({ property }) => property))].sort(),
    );
  });

  for (const property of properties) {
    const can = reloadable.includes(property);
    test(`${property} ${can ? "can change" : "cannot change"} while the beacon runs`, () => {
      const wanted = { ...defaultConfig, [property]: others[property] };
      const expected = can
        ? { reloaded: [property], needRestart: [] }
        : { reloaded: [], needRestart: [property] };
      expect(compareConfigs(defaultConfig, wanted)).toEqual(expected);
      expect(compareConfigs(wanted, defaultConfig)).toEqual(expected);
    });
  }

  test("tells all that changed, in the order of the help, each once", () => {
    const { reloaded, needRestart } = compareConfigs(defaultConfig, {
      ...others,
      httpIsDefault: false,
    });
    const inOrder = [...new Set(settings.map(({ property }) => property))];
    expect(reloaded).toEqual(inOrder.filter((property) => reloadable.includes(property)));
    expect(needRestart).toEqual(inOrder.filter((property) => !reloadable.includes(property)));
  });
});

describe("reloadedConfig", () => {
  test("takes what can change from the wanted config, and the rest from the running one", () => {
    const running = { ...defaultConfig, beaconId: 1 };
    const wanted = { ...others, httpIsDefault: false, registryAdminTokenFile: "off" };
    const config = reloadedConfig(running, wanted);
    for (const property of properties)
      expect(config[property]).toEqual(
        (reloadable.includes(property) ? wanted : running)[property],
      );
    expect(config.httpIsDefault).toBe(running.httpIsDefault);
    expect(compareConfigs(config, wanted).reloaded).toEqual([]);
    expect(running).toEqual({ ...defaultConfig, beaconId: 1 });
  });

  test("refuses a registry when only the wanted config has the beacon id for it", () => {
    expect(refusal(() => reloadedConfig(run([]), run(["--registry=r:1", "--beacon-id=1"])))).toBe(
      "--registry needs --beacon-id: a number other than 0, its own for each beacon",
    );
  });
});

test("flagOf names the flag of every property, the first where there are two", () => {
  expect(flagOf("maxNodes")).toBe("--max-nodes");
  expect(flagOf("http")).toBe("--http");
  for (const property of properties) expect(flagOf(property)).toMatch(/^--[a-z-]+$/);
});

type Reads<F> = F extends { create(host: infer H): unknown }
  ? H extends { readonly config: infer Options }
    ? Options
    : unknown
  : never;
type Unmet<F> = F extends F ? (Config extends Reads<F> ? never : F) : never;

test("each option that a feature reads is declared, with the type that it expects", () => {
  const all: [Unmet<(typeof features)[number]>] extends [never] ? true : false = true;
  expect(all).toBe(true); // the compiler checks it
});
