/**
 * The WebSocket bridge: what its options take, what they need, and what of them a reload may
 * change.
 */
import { afterAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type Config, compareConfigs, reloadedConfig, validateConfig } from "../../src/config.ts";
import { settings } from "../../src/settings.ts";
import { refusal, run, temporaryFiles } from "./support.ts";

const { file, remove } = temporaryFiles();
afterAll(remove);

const KEY_SOURCE = { keyOf: () => null };
const REGISTRY = ["--registry", "r:1", "--beacon-id", "1"];

test("stands behind what beacons tell each other in the help", () => {
  const titles = [...new Set(settings.map(({ group }) => group))];
  expect(titles).toContain("WebSocket bridge:");
  expect(titles.indexOf("WebSocket bridge:")).toBe(titles.indexOf("Directory:") + 1);
  const ofBridge = settings.filter(({ group }) => group === "WebSocket bridge:");
  expect(ofBridge.map(({ flag }) => flag)).toEqual([
    "wss",
    "wss-tls-cert",
    "wss-tls-key",
    "wss-max-peers",
    "wss-trusted-proxy",
    "wss-upgrade-limit",
    "wss-failure-limit",
  ]);
});

test("takes its options from a file as JSON has them", () => {
  const path = file({
    wss: ":443",
    "wss-tls-cert": "/chain.pem",
    "wss-tls-key": "/key.pem",
    "wss-max-peers": 7,
    "wss-trusted-proxy": ["10.0.0.0/8", "::1"],
    "wss-keys": "/keys.json",
  });
  expect(run(["--config", path])).toMatchObject({
    wss: ":443",
    wssTlsCert: "/chain.pem",
    wssTlsKey: "/key.pem",
    wssMaxPeers: 7,
    wssTrustedProxies: ["10.0.0.0/8", "::1"],
    wssKeys: "/keys.json",
  });
  const off = file({ wss: false, "wss-tls-cert": false, "wss-tls-key": false, "wss-keys": false });
  expect(run(["--config", off])).toEqual(run([]));
});

test("off is a value: it outranks the environment", () => {
  const env = {
    BEACON_WSS: ":443",
    BEACON_WSS_TLS_CERT: "/chain.pem",
    BEACON_WSS_TLS_KEY: "/key.pem",
    BEACON_WSS_KEYS: "/keys.json",
  };
  expect(run([], env)).toMatchObject({ wss: ":443", wssTlsKey: "/key.pem" });
  expect(
    run(["--wss=off", "--wss-tls-cert=off", "--wss-tls-key=off", "--wss-keys=off"], env),
  ).toEqual(run([]));
});

test.each([
  [["--wss", "bridge:443"], "use an IP address in full"],
  [["--wss", "443"], "must be address:port"],
  [["--wss-tls-cert="], "must be the path of a file; or off"],
  [["--wss-max-peers", "0"], "must be a whole number from 1 to 1000000"],
  [
    ["--wss-trusted-proxy", "10.1.2.3/8"],
    "10.1.2.3/8: has bits set behind the prefix; use 10.0.0.0/8",
  ],
])("%j", (argv, reason) => expect(refusal(() => run(argv))).toContain(reason));

describe("the trusted proxies", () => {
  const inFile = (proxies: unknown) =>
    run(["--config", file({ "wss-trusted-proxy": proxies })]).wssTrustedProxies;
  const inCode = (proxies: unknown) =>
    validateConfig({ wssTrustedProxies: proxies } as never).wssTrustedProxies;
  const many = (count: number) => Array.from({ length: count }, (_, i) => `10.0.0.${i}`);
  const NO_LIST =
    "must be a list of at most 128 IP addresses or prefixes with commas between (in JSON and in code, an array)";

  test.each([
    [[], []],
    [["192.0.2.1"], ["192.0.2.1"]],
    [
      ["::1", "10.0.0.0/8", "::1"],
      ["::1", "10.0.0.0/8"],
    ],
    [
      ["2001:DB8::/32", "::ffff:10.0.0.1"],
      ["2001:DB8::/32", "::ffff:10.0.0.1"],
    ],
    [many(128), many(128)],
  ])("are kept as they were written, each once: #%#", (proxies, expected) => {
    expect(inFile(proxies)).toEqual(expected);
    expect(inCode(proxies)).toEqual(expected);
    expect(run(["--wss-trusted-proxy", proxies.join()]).wssTrustedProxies).toEqual(expected);
  });

  test.each([
    [many(129), NO_LIST],
    [{ 0: "::1", length: 1 }, NO_LIST],
    [null, NO_LIST],
    [true, NO_LIST],
    [10, NO_LIST],
    [[""], '"": must be an IP address in full'],
    [["::1", "proxy"], "proxy: must be an IP address in full"],
    [["::1,::2"], "::1,::2: must be an IP address in full"],
    [[" ::1"], '" ::1": must be an IP address in full'],
    [[["::1"]], '"": must be an IP address in full'],
    [[1], '"": must be an IP address in full'],
    [[null], '"": must be an IP address in full'],
    [["::1\n"], '"::1\\n": must be an IP address in full'],
    [["x".repeat(5000)], "must be an IP address in full"],
    [["10.0.0.0/33"], "10.0.0.0/33: the prefix must have from 0 to 32 bits"],
    [["fe80::1%eth0"], "fe80::1%eth0: an IPv6 zone is not supported"],
  ])("refuse #%#", (proxies, reason) => {
    for (const message of [refusal(() => inFile(proxies)), refusal(() => inCode(proxies))]) {
      expect(message).toContain(reason);
      expect(message).not.toContain("\n");
      expect(message.length).toBeLessThan(500);
    }
  });

  test("are no text in code", () => {
    expect(refusal(() => inCode("::1"))).toBe(`wssTrustedProxies "::1": ${NO_LIST}`);
  });

  test("may not have holes, nor be huge", () => {
    expect(refusal(() => inCode(new Array(2)))).toContain('"": must be an IP address in full');
    expect(refusal(() => inCode(new Array(2 ** 32 - 1)))).toContain(NO_LIST);
  });

  test("are not the caller's array, and cannot be changed", () => {
    const given = ["::1"];
    const proxies = inCode(given);
    given.push("nonsense");
    expect(proxies).toEqual(["::1"]);
    expect(Object.isFrozen(proxies)).toBe(true);
    expect(Object.isFrozen(validateConfig({}).wssTrustedProxies)).toBe(true);
  });

  test("mean the same as text and as an array, whatever they are", () => {
    const prefix = fc.oneof(
      fc.ipV4(),
      fc.ipV6(),
      fc.nat(255).map((byte) => `${byte}.0.0.0/8`),
      fc.integer({ min: 1, max: 0xffff }).map((group) => `${group.toString(16)}::/16`),
    );
    const comma = fc.constantFrom(",", ", ", " ,", "  ,\t");
    fc.assert(
      fc.property(fc.array(prefix, { maxLength: 20 }), comma, (prefixes, separator) => {
        const expected = [...new Set(prefixes)];
        expect(inCode(prefixes)).toEqual(expected);
        expect(run([`--wss-trusted-proxy=${prefixes.join(separator)}`]).wssTrustedProxies).toEqual(
          expected,
        );
      }),
    );
  });
});

describe("a certificate and its key", () => {
  const certAlone = "--wss-tls-cert needs --wss-tls-key: the certificate's private key";
  const keyAlone = "--wss-tls-key needs --wss-tls-cert: the key's certificate";

  test("go together, with the bridge on or off", () => {
    for (const bridge of [[], ["--wss", ":443", "--wss-keys", "/keys.json"]]) {
      expect(refusal(() => run([...bridge, "--wss-tls-cert", "c"]))).toBe(certAlone);
      expect(refusal(() => run([...bridge, "--wss-tls-key", "k"]))).toBe(keyAlone);
      const config = run([...bridge, "--wss-tls-cert", "/c"], { BEACON_WSS_TLS_KEY: "/k" });
      expect(config).toMatchObject({ wssTlsCert: "/c", wssTlsKey: "/k" });
    }
  });

  test("are missed wherever the other one stands", () => {
    expect(refusal(() => run(["--config", file({ "wss-tls-cert": "/c" })]))).toBe(certAlone);
    const both = { BEACON_WSS_TLS_CERT: "/c", BEACON_WSS_TLS_KEY: "/k" };
    expect(refusal(() => run(["--wss-tls-cert=off"], both))).toBe(keyAlone);
    expect(refusal(() => validateConfig({ wssTlsCert: "/c" }))).toStartWith(
      "wssTlsCert needs wssTlsKey: ",
    );
    expect(refusal(() => validateConfig({ wssTlsKey: "/k" }))).toStartWith(
      "wssTlsKey needs wssTlsCert: ",
    );
    expect(validateConfig({ wssTlsCert: "/c", wssTlsKey: "/k" }).wssTlsCert).toBe("/c");
  });
});

describe("a bridge needs something that knows the nodes' keys", () => {
  const REASON = "something that knows the nodes' keys";
  const message = `--wss needs --wss-keys or --registry: ${REASON}`;

  test("a file, the registry, or both", () => {
    expect(refusal(() => run(["--wss", ":443"]))).toBe(message);
    expect(refusal(() => run(["--wss", ":443", "--wss-keys=off"], { BEACON_WSS_KEYS: "/k" }))).toBe(
      message,
    );
    expect(refusal(() => run(["--config", file({ wss: ":443" })]))).toBe(message);
    expect(run(["--wss", ":443", "--wss-keys", "k"]).wss).toBe(":443");
    expect(run(["--wss", ":443", ...REGISTRY]).wss).toBe(":443");
    expect(run(["--wss", ":443", "--wss-keys", "k", ...REGISTRY]).wss).toBe(":443");
  });

  test("a bridge that is off needs nothing, whatever its other options", () => {
    const argv = ["--wss-max-peers=7", "--wss-trusted-proxy=::1"];
    expect(run(argv)).toMatchObject({ wss: "off", wssMaxPeers: 7 });
    expect(run([...argv, "--wss=off", "--wss-keys=/k"]).wssKeys).toBe("/k");
    expect(run(["--wss=off"], { BEACON_WSS: ":443" }).wss).toBe("off");
  });

  test("in code, a source that is handed over will do, and stands in for nothing else", () => {
    expect(refusal(() => validateConfig({ wss: ":443" }))).toBe(
      `wss needs wssKeys or registry: ${REASON}`,
    );
    expect(refusal(() => validateConfig({ wss: ":443" }, { keyOf: undefined }))).toContain(REASON);
    expect(validateConfig({ wss: ":443" }, KEY_SOURCE).wss).toBe(":443");
    expect(validateConfig({ wss: ":443", wssKeys: "/k" }, KEY_SOURCE).wssKeys).toBe("/k");
    expect(validateConfig({}, KEY_SOURCE)).toEqual(validateConfig({}));
    expect(refusal(() => validateConfig({ registry: "r:1" }, KEY_SOURCE))).toContain(
      "needs beaconId",
    );
    expect(refusal(() => validateConfig({ wssTlsKey: "/k" }, KEY_SOURCE))).toContain(
      "needs wssTlsCert",
    );
  });
});

describe("a reload", () => {
  const withKeys = run(["--wss=:443", "--wss-keys=/k", "--beacon-id=1"]);
  const withRegistry = run(["--wss=:443", ...REGISTRY]);
  const without = run(["--beacon-id=1"]);
  const noKeys = "--wss needs --wss-keys or --registry: something that knows the nodes' keys";

  test("changes what can change of a bridge, and leaves its address", () => {
    const wanted = run([
      ...[
        "--wss=:444",
        "--wss-keys=other",
        "--beacon-id=1",
        "--wss-tls-cert=/c",
        "--wss-tls-key=/k",
      ],
      ...["--wss-max-peers=7", "--wss-trusted-proxy=::1"],
    ]);
    expect(compareConfigs(withKeys, wanted)).toEqual({
      reloaded: ["wssTlsCert", "wssTlsKey", "wssMaxPeers", "wssTrustedProxies", "wssKeys"],
      needRestart: ["wss"],
    });
    expect(reloadedConfig(withKeys, wanted)).toEqual({ ...wanted, wss: ":443" });
  });

  test("sees proxies that are others, not the same in another array", () => {
    const proxies = (list: string) => run([`--wss-trusted-proxy=${list}`]);
    expect(compareConfigs(proxies("::1,::2"), proxies("::1,::2")).reloaded).toEqual([]);
    expect(compareConfigs(proxies("::1,::2"), proxies("::1")).reloaded).toEqual([
      "wssTrustedProxies",
    ]);
  });

  test("may take the keys from elsewhere", () => {
    expect(reloadedConfig(withKeys, withRegistry)).toMatchObject({
      wssKeys: "off",
      registry: "r:1",
    });
    expect(reloadedConfig(withRegistry, withKeys)).toMatchObject({
      wssKeys: "/k",
      registry: "off",
    });
  });

  test("is refused when it takes them away from a bridge that goes on", () => {
    for (const running of [withKeys, withRegistry]) {
      expect(refusal(() => reloadedConfig(running, without))).toBe(noKeys);
      expect(refusal(() => reloadedConfig(running, without, { keyOf: undefined }))).toBe(noKeys);
      const config = reloadedConfig(running, without, KEY_SOURCE);
      expect(config).toMatchObject({
        wss: ":443",
        wssKeys: "off",
        registry: "off",
      } satisfies Partial<Config>);
    }
  });

  test("of a beacon without a bridge needs no keys", () => {
    const running = run(["--wss-keys=/k"]);
    expect(reloadedConfig(running, run([])).wssKeys).toBe("off");
    expect(reloadedConfig(run([]), run(["--wss=:443", "--wss-keys=/k"])).wss).toBe("off");
    const handed = validateConfig({ wss: ":443" }, KEY_SOURCE);
    expect(reloadedConfig(validateConfig({}), handed).wss).toBe("off");
  });
});
