import { afterAll, describe, expect, spyOn, test } from "bun:test";
import { join, resolve } from "node:path";
import fc from "fast-check";
import {
  type Config,
  ConfigError,
  defaultConfig,
  parseCommandLine,
  validateConfig,
} from "../src/config.ts";
import { envName, settings, valueForm } from "../src/settings.ts";
import { type Environment, refusal, run, temporaryFiles } from "./config/support.ts";

const { file, folder, remove } = temporaryFiles();
afterAll(remove);

function printed(...argv: string[]): string {
  const line = parseCommandLine(argv, {}, "1.2.3");
  if (line.kind !== "print") throw new Error("ran instead of printing");
  return line.text;
}

/** What differs from the defaults. */
function changes(argv: readonly string[], env: Environment = {}): Partial<Config> {
  const defaults: Record<string, unknown> = { ...defaultConfig };
  const isChange = ([key, value]: [string, unknown]) => !Bun.deepEquals(defaults[key], value);
  return Object.fromEntries(Object.entries(run(argv, env)).filter(isChange));
}

interface Samples {
  good: [string, unknown][];
  bad: string[];
  /** Flags without which none is good. */
  needs?: string[];
}

/** For each flag: texts that are taken, with their value, and texts that are not. */
const samples: Record<string, Samples> = {
  addr: {
    good: [
      ["0.0.0.0:9", "0.0.0.0:9"],
      ["[::1]:0", "[::1]:0"],
    ],
    bad: ["", "localhost:1", ":65536", "127.1:1", "off"],
  },
  "beacon-id": {
    good: [
      ["0", 0],
      ["4294967295", 4294967295],
    ],
    bad: ["", "4294967296", "1.5", "0x1", " 1", "1e3", "NaN"],
  },
  "recv-buffer": {
    good: [
      ["65536", 65536],
      ["1GiB", 2 ** 30],
    ],
    bad: ["65535", "63K", "1025MiB", "4MB"],
  },
  "send-buffer": {
    good: [
      ["64KiB", 65536],
      ["2M", 2 ** 21],
    ],
    bad: ["65535", "0", "2G", ""],
  },
  peers: {
    good: [
      ["", []],
      [" ", []],
      ["b2:9001", ["b2:9001"]],
      [
        "b2.example:1, 192.0.2.3:65535 ,[2001:db8::1]:9",
        ["b2.example:1", "192.0.2.3:65535", "[2001:db8::1]:9"],
      ],
      ["b:1,a:1,b:1", ["b:1", "a:1"]],
    ],
    bad: [
      ",",
      "b2",
      "b2:0",
      ":9001",
      "a:1,",
      "a:1,,b:1",
      "a:1;b:1",
      "a:1 b:1",
      "[fe80::1%eth0]:1",
      "[...]",
    ],
  },
  "gossip-interval": {
    good: [
      ["100ms", 100],
      ["1m", 60_000],
    ],
    bad: ["99ms", "1m1ms", "0", "off", ""],
  },
  "peer-timeout": {
    good: [
      ["10001ms", 10_001],
      ["1h", 3_600_000],
    ],
    bad: ["999ms", "1h1ms", "0", "90"],
  },
  "max-routes": {
    good: [
      ["1", 1],
      ["16000000", 16_000_000],
    ],
    bad: ["0", "16000001", "1M"],
  },
  "max-peer-routes": {
    good: [
      ["1", 1],
      ["16375", 16_375],
    ],
    bad: ["0", "16376", "off"],
  },
  "source-address": {
    good: [
      ["auto", "auto"],
      ["on", "on"],
      ["off", "off"],
    ],
    bad: ["", "true", "yes"],
  },
  "gossip-strict": {
    good: [
      ["auto", "auto"],
      ["on", "on"],
      ["off", "off"],
    ],
    bad: ["", "true", "yes"],
  },
  "gossip-key-file": {
    good: [
      ["off", "off"],
      ["/etc/beacon/gossip.key", "/etc/beacon/gossip.key"],
    ],
    bad: ["", "a\0b"],
  },
  registry: {
    good: [
      ["off", "off"],
      ["registry.example:9000", "registry.example:9000"],
      ["[::1]:1", "[::1]:1"],
    ],
    bad: ["", "on", "registry", ":9000", "registry:0", "http://registry:9000"],
    needs: ["--beacon-id", "1"],
  },
  "registry-interval": {
    good: [
      ["100ms", 100],
      ["1h", 3_600_000],
    ],
    bad: ["99ms", "1h1ms", "0", "off"],
  },
  "registry-admin-token": {
    good: [
      ["", ""],
      ["!~", "!~"],
      ["x".repeat(1024), "x".repeat(1024)],
      ["off", "off"],
    ],
    bad: [" ", "two words", "tab\t", "line\n", "schlüssel", "\0", "\x7f", "x".repeat(1025)],
  },
  "registry-admin-token-file": {
    good: [["off", "off"]],
    bad: ["", "a\0b"],
  },
  "advertise-addr": {
    good: [
      ["auto", "auto"],
      ["b1.example:9001", "b1.example:9001"],
    ],
    bad: ["", "off", ":9001", "b1.example:0"],
  },
  directory: {
    good: [
      ["off", "off"],
      ["redis://r1.example", "redis://r1.example"],
      [
        "rediss://r1.example:1,192.0.2.1,[2001:db8::1]:65535/3",
        "rediss://r1.example:1,192.0.2.1,[2001:db8::1]:65535/3",
      ],
    ],
    bad: [
      "",
      "on",
      "r1.example:6379",
      "redis://",
      "redis://r1:0",
      "redis://r1/65536",
      "redis://u:p@r1",
      "unix:///redis",
    ],
    needs: ["--beacon-id", "1", "--addr", "192.0.2.1:1"],
  },
  "directory-ca-file": {
    good: [["/etc/beacon/ca.pem", "/etc/beacon/ca.pem"]],
    bad: ["", "a\0b"],
    needs: ["--beacon-id", "1", "--addr", "192.0.2.1:1", "--directory", "rediss://r1"],
  },
  "directory-auth-file": {
    good: [
      ["off", "off"],
      ["/etc/beacon/directory.auth", "/etc/beacon/directory.auth"],
    ],
    bad: ["", "a\0b"],
  },
  "directory-prefix": {
    good: [
      ["pilot-beacon", "pilot-beacon"],
      ["A.b_c:9-0", "A.b_c:9-0"],
      ["off", "off"],
      ["x".repeat(64), "x".repeat(64)],
    ],
    bad: ["", "x".repeat(65), "{x}", "a b", "ä", "a\n", "a*"],
  },
  "directory-grace": {
    good: [
      ["0", 0],
      ["24h", 86_400_000],
    ],
    bad: ["", "24h1ms", "5", "off"],
  },
  "directory-lease": {
    good: [
      ["3s", 3000],
      ["5m", 300_000],
    ],
    bad: ["", "2999ms", "5m1ms", "0", "10"],
  },
  wss: {
    good: [
      ["off", "off"],
      [":443", ":443"],
      ["[::1]:0", "[::1]:0"],
    ],
    bad: ["", "on", "localhost:443", ":65536", "wss://192.0.2.1:443"],
    needs: ["--wss-keys", "keys.json"],
  },
  "wss-tls-cert": {
    good: [
      ["/etc/beacon/chain.pem", "/etc/beacon/chain.pem"],
      ["chain, all of it", resolve("chain, all of it")],
    ],
    bad: ["", "a\0b"],
    needs: ["--wss-tls-key", "key.pem"],
  },
  "wss-tls-key": {
    good: [["/etc/beacon/key.pem", "/etc/beacon/key.pem"]],
    bad: ["", "a\0b"],
    needs: ["--wss-tls-cert", "chain.pem"],
  },
  "wss-max-peers": {
    good: [
      ["1", 1],
      ["1000000", 1_000_000],
    ],
    bad: ["", "0", "1000001", "10k", "off"],
  },
  "wss-trusted-proxy": {
    good: [
      ["", []],
      [" ", []],
      ["192.0.2.1", ["192.0.2.1"]],
      ["10.0.0.0/8, 2001:db8::/32 ,::1", ["10.0.0.0/8", "2001:db8::/32", "::1"]],
      ["::1,10.0.0.0/8,::1", ["::1", "10.0.0.0/8"]],
    ],
    bad: [
      ",",
      "none",
      "localhost",
      "127.1",
      "10.1.2.3/8",
      "10.0.0.0/33",
      "::1,",
      "::1;10.0.0.1",
      "fe80::1%eth0",
    ],
  },
  "wss-keys": {
    good: [
      ["off", "off"],
      ["/var/lib/beacon/keys.json", "/var/lib/beacon/keys.json"],
    ],
    bad: ["", "a\0b"],
  },
  "wss-upgrade-limit": {
    good: [
      ["0", 0],
      ["1", 1],
      ["1000000000", 1_000_000_000],
    ],
    bad: ["", "-1", "1.5", "1000000001", "4k", "off"],
  },
  "wss-failure-limit": {
    good: [
      ["0", 0],
      ["1", 1],
      ["1000000000", 1_000_000_000],
    ],
    bad: ["", "-1", "1.5", "1000000001", "4k", "off"],
  },
  "relay-limit": {
    good: [
      ["0", 0],
      ["1", 1],
      ["1000000000", 1_000_000_000],
    ],
    bad: ["", "-1", "1.5", "1000000001", "4k", "off"],
  },
  "relay-address-limit": {
    good: [
      ["0", 0],
      ["1", 1],
      ["1000000000", 1_000_000_000],
    ],
    bad: ["", "-1", "1.5", "1000000001", "4k", "off"],
  },
  "punch-source-limit": {
    good: [
      ["0", 0],
      ["1", 1],
      ["1000000000", 1_000_000_000],
    ],
    bad: ["", "-1", "1.5", "1000000001", "4k", "off"],
  },
  "punch-limit": {
    good: [
      ["auto", "auto"],
      ["0", 0],
      ["1000000000", 1_000_000_000],
    ],
    bad: ["", "off", "-1", "1000000001"],
  },
  "punch-allow": {
    good: [
      ["", []],
      ["*", ["*"]],
      ["192.0.2.1, 10.0.0.0/8,*", ["192.0.2.1", "10.0.0.0/8", "*"]],
    ],
    bad: ["**", "all", "10.1.2.3/8", "*,"],
  },
  "endpoint-hold": {
    good: [
      ["0", 0],
      ["30s", 30_000],
      ["1h", 3_600_000],
    ],
    bad: ["", "1h1ms", "30", "off"],
  },
  "new-node-limit": {
    good: [
      ["0", 0],
      ["1", 1],
      ["1000000000", 1_000_000_000],
    ],
    bad: ["", "-1", "1.5", "1000000001", "4k", "off"],
  },
  "answer-limit": {
    good: [
      ["0", 0],
      ["1", 1],
      ["1000000000", 1_000_000_000],
    ],
    bad: ["", "-1", "1.5", "1000000001", "4k", "off"],
  },
  "limits-shadow": {
    good: [
      ["on", true],
      ["off", false],
    ],
    bad: ["", "1"],
  },
  "deny-endpoint": {
    good: [
      ["", []],
      ["127.0.0.0/8,fc00::/7", ["127.0.0.0/8", "fc00::/7"]],
    ],
    bad: ["*", "private", "10.1.2.3/8"],
  },
  "require-punch-grant": {
    good: [
      ["on", true],
      ["off", false],
    ],
    bad: ["", "auto"],
  },
  "self-check": {
    good: [
      ["on", true],
      ["off", false],
    ],
    bad: ["", "auto"],
  },
  "admin-auth": {
    good: [["auto", "auto"]],
    bad: ["", "on", "never", "Always"],
  },
  "punch-watch": {
    good: [
      ["on", true],
      ["off", false],
    ],
    bad: ["", "auto"],
  },
  "max-nodes": {
    good: [
      ["1", 1],
      ["16000000", 16_000_000],
    ],
    bad: ["0", "16000001", "500_000"],
  },
  "node-ttl": {
    good: [
      ["1s", 1000],
      ["24h", 86_400_000],
      ["1m30s", 90_000],
    ],
    bad: ["999ms", "24h1ms", "10", "0s"],
  },
  workers: {
    good: [
      ["1", 1],
      ["64", 64],
    ],
    bad: ["0", "65", "two", "9".repeat(400)],
  },
  batch: {
    good: [
      ["1", 1],
      ["1024", 1024],
    ],
    bad: ["0", "1025"],
  },
  offload: {
    good: [
      ["on", true],
      ["off", false],
    ],
    bad: ["", "true", "ON", "1"],
  },
  steering: {
    good: [
      ["on", true],
      ["off", false],
    ],
    bad: ["no", "0"],
  },
  drain: {
    good: [
      ["0", 0],
      ["0s", 0],
      ["1h", 3_600_000],
    ],
    bad: ["", "1h1ms", "5", "00", "-0"],
  },
  "state-file": {
    good: [
      ["off", "off"],
      ["/var/lib/beacon/nodes", "/var/lib/beacon/nodes"],
      ["nodes, all of them", resolve("nodes, all of them")],
    ],
    bad: ["", "a\0b"],
  },
  "state-interval": {
    good: [
      ["1s", 1000],
      ["1h", 3_600_000],
    ],
    bad: ["999ms", "1h1ms", "60", "off"],
  },
  "admin-token-file": {
    good: [
      ["off", "off"],
      ["/etc/beacon/admin.token", "/etc/beacon/admin.token"],
    ],
    bad: ["", "a\0b"],
  },
  http: {
    good: [
      ["off", "off"],
      [":80", ":80"],
    ],
    bad: ["on", "localhost:80", ""],
  },
  health: {
    good: [
      ["off", "off"],
      ["[::]:80", "[::]:80"],
    ],
    bad: ["on", "80"],
  },
  "log-level": {
    good: [
      ["trace", "trace"],
      ["silent", "silent"],
    ],
    bad: ["", "INFO", "verbose"],
  },
  "log-format": {
    good: [
      ["json", "json"],
      ["text", "text"],
    ],
    bad: ["xml"],
  },
};

describe("every option", () => {
  test("has samples here", () => {
    expect(Object.keys(samples).sort()).toEqual(settings.map(({ flag }) => flag).sort());
  });

  for (const { flag, property } of settings) {
    const { good, bad, needs = [] } = samples[flag]!;
    test(`--${flag} is read alike from a flag, the environment and a file`, () => {
      for (const [text, value] of good) {
        for (const spelling of [
          [`-${flag}`, text],
          [`--${flag}`, text],
          [`-${flag}=${text}`],
          [`--${flag}=${text}`],
        ])
          expect(run([...needs, ...spelling])[property]).toEqual(value as never);
        expect(run(needs, { [envName(flag)]: text })[property]).toEqual(value as never);
        expect(run([...needs, "--config", file({ [flag]: text })])[property]).toEqual(
          value as never,
        );
      }
    });

    test(`--${flag} is refused alike, with the place`, () => {
      for (const text of bad) {
        const byFlag = refusal(() => run([`--${flag}=${text}`]));
        expect(byFlag).toStartWith(`--${flag} `);
        const reason = byFlag.slice(byFlag.lastIndexOf(": "));
        if (text !== "") {
          const byEnv = refusal(() => run([], { [envName(flag)]: text }));
          expect(byEnv).toStartWith(`${envName(flag)}=`);
          expect(byEnv).toEndWith(reason);
        }
        const path = file({ [flag]: text });
        const byFile = refusal(() => run(["--config", path]));
        expect(byFile).toStartWith(`${path}: "${flag}": `);
        expect(byFile).toEndWith(reason);
      }
    });
  }
});

describe("precedence", () => {
  const config = file({ "max-nodes": 3, batch: 3 });
  test("flag over environment over file over default", () => {
    const env = { BEACON_MAX_NODES: "2", BEACON_CONFIG: config };
    expect(run(["-max-nodes", "1"], env).maxNodes).toBe(1);
    expect(run([], env)).toMatchObject({ maxNodes: 2, batchMax: 3 });
    expect(run([], { BEACON_CONFIG: config }).maxNodes).toBe(3);
    expect(run([])).toEqual(defaultConfig);
  });

  test("--config outranks BEACON_CONFIG", () => {
    expect(run(["--config", file({ batch: 9 })], { BEACON_CONFIG: config }).batchMax).toBe(9);
  });

  test("the last of a repeated flag wins", () => {
    expect(run(["-batch=0", "--batch", "7", "-batch=8"]).batchMax).toBe(8);
  });

  test("an outranked mistake is a mistake", () => {
    expect(refusal(() => run(["--batch", "1"], { BEACON_BATCH: "x" }))).toStartWith(
      "BEACON_BATCH=x: ",
    );
  });

  test("an empty variable is unset; an unknown one, and this process's own, are nobody's business", () => {
    process.env["BEACON_BATCH"] = "5";
    try {
      expect(changes([], { BEACON_ADDR: "", BEACON_CONFIG: "", BEACON_COLOUR: "red" })).toEqual({});
    } finally {
      delete process.env["BEACON_BATCH"];
    }
  });
});

describe("defaults", () => {
  test("are the documented ones", () => {
    expect(defaultConfig).toMatchObject({
      addr: ":9001",
      beaconId: 0,
      logLevel: "info",
      logFormat: "text",
      http: "127.0.0.1:9002",
      httpIsDefault: true,
      maxNodes: 500_000,
      nodeTtlMs: 600_000,
      offload: true,
      steering: true,
      batchMax: 64,
      recvBufferBytes: 4_194_304,
      sendBufferBytes: 4_194_304,
      peers: [],
      gossipIntervalMs: 10_000,
      peerTimeoutMs: 90_000,
      maxRoutes: 1_000_000,
      registry: "off",
      registryAdminToken: "",
      registryAdminTokenFile: "off",
      advertiseAddr: "auto",
      directory: "off",
      directoryCaFile: "off",
      directoryAuthFile: "off",
      directoryPrefix: "pilot-beacon",
      directoryGraceMs: 300_000,
      directoryLeaseMs: 10_000,
      wss: "off",
      wssTlsCert: "off",
      wssTlsKey: "off",
      wssMaxPeers: 10_000,
      wssTrustedProxies: [],
      wssKeys: "off",
      drainMs: 0,
      stateFile: "off",
      stateIntervalMs: 60_000,
      maxPeerRoutes: 16_375,
      gossipStrict: "on",
      gossipKeyFile: "off",
      wssUpgradeLimit: 100,
      wssFailureLimit: 10,
      relayLimit: 4000,
      relayAddressLimit: 20_000,
      punchSourceLimit: 1,
      punchLimit: "auto",
      punchAllow: [],
      endpointHoldMs: 30_000,
      newNodeLimit: 100,
      answerLimit: 1000,
      limitsShadow: false,
      denyEndpoint: [],
      requirePunchGrant: false,
      adminTokenFile: "off",
      adminAuth: "auto",
      punchWatch: true,
      selfCheck: true,
    });
    expect(defaultConfig.workers).toBeWithin(1, 65);
  });
});

describe("--http and --health", () => {
  test("are one setting; given at all, it is no longer the default", () => {
    expect(changes(["--health", ":80"])).toEqual({ http: ":80", httpIsDefault: false });
    expect(changes(["--http", "127.0.0.1:9002"])).toEqual({ httpIsDefault: false });
    expect(changes([], { BEACON_HEALTH: "off" })).toEqual({ http: "off", httpIsDefault: false });
    expect(changes(["--config", file({ health: false })])).toEqual({
      http: "off",
      httpIsDefault: false,
    });
  });

  test("may agree but not differ at one level; across levels the higher wins", () => {
    expect(changes(["--health", ":80", "--http", ":80"]).http).toBe(":80");
    expect(refusal(() => run(["--health", ":80", "--http", ":81"]))).toBe(
      "--health :80: --http :81 sets the same to another value; give one of them",
    );
    expect(refusal(() => run([], { BEACON_HEALTH: "off", BEACON_HTTP: ":1" }))).toContain(
      "BEACON_HTTP=:1",
    );
    expect(changes(["--health", ":80"], { BEACON_HTTP: ":81" }).http).toBe(":80");
    expect(changes(["--http", ":80"], { BEACON_HEALTH: ":81" }).http).toBe(":80");
  });
});

describe("the command line", () => {
  test.each([
    [["--workers", "0"], "--workers 0: must be a whole number from 1 to 64"],
    [["--adr", ":1"], "--adr: unknown flag; did you mean --addr? (see --help)"],
    [["-adr=:1"], "-adr: unknown flag; did you mean --addr? (see --help)"],
    [["--colour"], "--colour: unknown flag (see --help)"],
    [["--__proto__=1"], "--__proto__: unknown flag (see --help)"],
    [["--constructor", "1"], "--constructor: unknown flag (see --help)"],
    [["---addr", ":1"], "---addr: unknown flag; did you mean --addr? (see --help)"],
    [["--=1"], "--=1: unknown flag (see --help)"],
    [["-=1"], "-=1: unknown flag (see --help)"],
    [["--first", "-second"], "--first: unknown flag (see --help)"],
    [["--x\n(Did you mean \x1b?)"], '"--x\\n(Did you mean \\u001b?)": unknown flag (see --help)'],
    [["-1"], "-1: unknown flag (see --help)"],
    [["--addr", "--workers", "2"], "--addr: needs a value, not --workers"],
    [["--beacon-id", "-1"], "--beacon-id: needs a value, not -1"],
    [["--beacon-id=-1"], "--beacon-id -1: must be a whole number from 0 to 4294967295"],
    [["--addr", "--"], "--addr: needs a value, not --"],
    [
      ["--addr", "--registry-admin-token=hunter2"],
      "--addr: needs a value, not --registry-admin-token",
    ],
    [["--addr"], "--addr: needs a value"],
    [["--offload"], "--offload: needs a value"],
    [["--version=1"], "--version=1: --version takes no value"],
    [["serve"], "serve: only flags are taken (see --help)"],
    [["-"], "-: only flags are taken (see --help)"],
    [[""], '"": only flags are taken (see --help)'],
    [["--", "--addr", ":1"], "--addr: only flags are taken (see --help)"],
    [
      ["--addr", "a\nb"],
      '--addr "a\\nb": must be address:port, such as :9001, 0.0.0.0:9001 or [::1]:9001',
    ],
  ])("%j", (argv, message) => expect(refusal(() => run(argv))).toBe(message));

  test("prints nothing by itself", () => {
    const streams = [spyOn(process.stdout, "write"), spyOn(process.stderr, "write")];
    try {
      refusal(() => run(["--adr"]));
      refusal(() => run(["serve"]));
      printed("--help");
      for (const stream of streams) expect(stream).not.toHaveBeenCalled();
    } finally {
      for (const stream of streams) stream.mockRestore();
    }
  });

  test("a value may hold an equals sign, and -- alone ends nothing", () => {
    expect(refusal(() => run(["--addr=a=b"]))).toStartWith("--addr a=b: ");
    expect(run(["--batch=2", "--"]).batchMax).toBe(2);
  });
});

describe("help and version", () => {
  test("every spelling prints, whatever else stands there", () => {
    for (const flag of ["-h", "-help", "--help", "--h"]) {
      expect(printed(flag)).toStartWith("Usage: beacon [flags]\n");
      expect(printed("--workers", "0", flag)).toStartWith("Usage: ");
    }
    for (const flag of ["-version", "--version"])
      expect(printed(flag)).toBe("pilot-beacon 1.2.3\n");
  });

  test("help names every flag, its default and its variable, within 100 columns", () => {
    const text = printed("--help");
    for (const setting of settings) {
      expect(text).toContain(`--${setting.flag} ${valueForm(setting)}`);
      expect(text).toContain(`env: ${envName(setting.flag)})`);
      if (setting.default !== undefined)
        expect(text).toContain(`default: ${setting.defaultNote ?? setting.default}; `);
    }
    for (const line of text.split("\n")) expect(line.length).toBeLessThanOrEqual(100);
    expect(text).toEndWith("\n");
  });

  test("the example in the help is taken", () => {
    const example = /Example:\n {2}beacon (.*)\n/.exec(printed("--help"))![1]!;
    expect(changes(example.split(" "))).toEqual({
      addr: "0.0.0.0:9001",
      maxNodes: 100_000,
      logFormat: "json",
    });
  });
});

describe("the config file", () => {
  test("takes numbers and booleans where they are natural", () => {
    const path = file({
      workers: 2,
      "recv-buffer": 65_536,
      offload: false,
      steering: true,
      "max-nodes": "7",
      drain: 0,
      "state-file": false,
    });
    expect(run(["--config", path])).toMatchObject({
      drainMs: 0,
      stateFile: "off",
      workers: 2,
      recvBufferBytes: 65_536,
      offload: false,
      steering: true,
      maxNodes: 7,
    });
  });

  test.each([
    ['{"node-ttl": "10"}', '"node-ttl": "10": needs a unit, such as 10m, 90s or 500ms'],
    ['{"node-ttl": 10}', '"node-ttl": 10: needs a unit, such as 10m, 90s or 500ms'],
    ['{"workers": 1.5}', '"workers": 1.5: must be a whole number from 1 to 64'],
    ['{"workers": true}', '"workers": true: must be a whole number from 1 to 64'],
    ['{"workers": null}', '"workers": null: must be a whole number from 1 to 64'],
    ['{"workers": [1]}', '"workers": [...]: must be a whole number from 1 to 64'],
    [
      `{"workers": ${"[".repeat(400_000)}${"]".repeat(400_000)}}`,
      '"workers": [...]: must be a whole',
    ],
    ['{"addr": {}}', '"addr": {...}: must be address:port'],
    ['{"state-file": true}', '"state-file": true: must be the path of a file; or off'],
    ['{"state-file": 7}', '"state-file": 7: must be the path'],
    ['{"state-file": null}', '"state-file": null: must be the path'],
    ['{"state-file": ["a"]}', '"state-file": [...]: must be the path'],
    [
      '{"registry-admin-token": 12345678901234567890}',
      '"registry-admin-token": ***: must be a string',
    ],
    ['{"registry-admin-token": null}', '"registry-admin-token": ***: must be a string'],
    ['{"registry": true}', '"registry": true: must be host:port'],
    ['{"drain": 5}', '"drain": 5: needs a unit'],
    ['{"maxNodes": 1}', "maxNodes: unknown key"],
    ['{"config": "x"}', "config: unknown key"],
    ['{"__proto__": {"workers": 1}}', "__proto__: unknown key"],
    ['{"toString": 1}', "toString: unknown key"],
    ['{"a\\nb": 1}', '"a\\nb": unknown key'],
    ["[]", "must hold one JSON object"],
    ["null", "must hold one JSON object"],
    ['"text"', "must hold one JSON object"],
    ["", "is not JSON"],
    ['{"workers": 1', "is not JSON"],
    ["no\nJSON", "is not JSON"],
    [`{${" ".repeat(1024 * 1024)}}`, "larger than 1048576 bytes"],
  ])("%#", (content, reason) => {
    const path = file(content);
    const message = refusal(() => run(["--config", path]));
    expect(message).toStartWith(`${path}: `);
    expect(message).toContain(reason);
    expect(message).not.toContain("\n");
  });

  test("may be as large as the bound, and start with a byte order mark", () => {
    expect(changes(["--config", file(`\ufeff{${" ".repeat(1024 * 1024 - 5)}}`)])).toEqual({});
  });

  test("must be UTF-8 and must be readable", () => {
    const latin1 = file(Uint8Array.from([0x7b, 0xe4, 0x7d]));
    expect(refusal(() => run(["--config", latin1]))).toStartWith(
      `${latin1}: the config file is not JSON`,
    );
    const missing = join(folder, "missing.json");
    const reason = "the config file cannot be read";
    expect(refusal(() => run(["--config", missing]))).toBe(`${missing}: ${reason} (ENOENT)`);
    expect(refusal(() => run([], { BEACON_CONFIG: folder }))).toBe(`${folder}: ${reason} (EISDIR)`);
    expect(refusal(() => run(["--config", "a\0b"]))).toContain(reason);
    expect(refusal(() => run(["--config="]))).toContain(reason);
  });
});

describe("validateConfig", () => {
  test("fills in the defaults, with http off", () => {
    expect(validateConfig({})).toEqual({ ...defaultConfig, http: "off", httpIsDefault: true });
    expect(validateConfig({ http: ":80" })).toMatchObject({ http: ":80", httpIsDefault: false });
    expect(validateConfig({ workers: undefined } as never)).toEqual(validateConfig({}));
  });

  test("returns a whole config as it is", () => {
    for (const config of [defaultConfig, run(["--http", ":1", "--batch=3"])])
      expect(validateConfig(config)).toEqual(config);
  });

  test.each([
    [{ workers: 0 }, "workers 0: must be a whole number from 1 to 64"],
    [{ workers: 1.5 }, "workers 1.5: must be"],
    [{ workers: Number.NaN }, "workers NaN: must be"],
    [{ workers: "4" }, 'workers "4": must be'],
    [{ maxNodes: 10n }, "maxNodes 10n: must be"],
    [{ nodeTtlMs: 999 }, "nodeTtlMs 999: must be from 1s to 24h"],
    [{ recvBufferBytes: 2 ** 30 + 1 }, "recvBufferBytes 1073741825: must be from 64KiB to 1GiB"],
    [{ offload: "on" }, "must be on or off"],
    [{ addr: 9001 }, "addr 9001: must be address:port"],
    [{ addr: null }, "addr null: must be address:port"],
    [{ http: false }, "http false: must be address:port"],
    [{ registry: "r" }, 'registry "r": must be host:port'],
    [{ advertiseAddr: "off" }, 'advertiseAddr "off": must be host:port'],
    [{ stateFile: false }, "stateFile false: must be the path of a file; or off"],
    [{ drainMs: "0s" }, 'drainMs "0s": must be from 0s to 1h'],
    [{ logLevel: "loud" }, "must be one of trace, debug"],
    [{ port: 1 }, "port: unknown option"],
    [{ maxNodes: { a: "\n" } }, "maxNodes "],
  ])("refuses #%#", (partial, message) => {
    const actual = refusal(() => validateConfig(partial as never));
    expect(actual).toContain(message);
    expect(actual).not.toContain("\n");
  });

  test("has the ranges of the command line", () => {
    const numeric = settings.filter(({ property }) => typeof defaultConfig[property] === "number");
    const number = fc.oneof(
      fc.integer({ min: -2, max: 2 ** 33 }),
      fc.integer({ min: -2, max: 70_000 }),
    );
    fc.assert(
      fc.property(fc.constantFrom(...numeric), number, ({ flag, property }, value) => {
        const unit = property.endsWith("Ms") ? "ms" : "";
        const accepts = (read: () => unknown) => {
          try {
            read();
            return true;
          } catch {
            return false;
          }
        };
        expect(accepts(() => validateConfig({ [property]: value }))).toBe(
          accepts(() => run([`--${flag}=${value}${unit}`])),
        );
      }),
    );
  });
});

test("whatever the arguments and the environment, the answer is a result or one line", () => {
  const flag = fc.constantFrom(
    ...settings.map((setting) => setting.flag),
    "version",
    "help",
    "h",
    "adr",
  );
  const good = fc.constantFrom(
    ...Object.values(samples).flatMap((sample) => sample.good.map(([text]) => text)),
  );
  const value = fc.oneof(
    good,
    fc.string(),
    fc.string({ unit: "binary" }),
    fc.string({ minLength: 300, maxLength: 2000 }),
  );
  const dashes = fc.constantFrom("-", "--", "---");
  const arg = fc.oneof(
    value,
    fc.tuple(dashes, flag).map((parts) => parts.join("")),
    fc.tuple(dashes, flag, fc.constant("="), value).map((parts) => parts.join("")),
    fc.tuple(dashes, value).map((parts) => parts.join("")),
  );
  const env = fc.dictionary(
    fc.constantFrom(...settings.map((setting) => envName(setting.flag)), "__proto__"),
    value,
    { maxKeys: 3 },
  );
  let ran = 0;
  let refused = 0;
  fc.assert(
    fc.property(fc.array(arg, { maxLength: 5 }), env, (argv, variables) => {
      try {
        if (parseCommandLine(argv, variables, "1").kind === "run") ran++;
      } catch (error) {
        refused++;
        expect(error).toBeInstanceOf(ConfigError);
        const { message } = error as ConfigError;
        expect(message).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}]/u);
        expect(message.length).toBeWithin(1, 500);
      }
    }),
    { numRuns: 1000 },
  );
  expect(Math.min(ran, refused)).toBeGreaterThan(10);
});
