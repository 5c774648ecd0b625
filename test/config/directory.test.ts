/**
 * The directory: how it is written, what its options need, and that no password gets into a
 * message.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseDirectory } from "../../src/config/units.ts";
import { validateConfig } from "../../src/config.ts";
import { refusal, run } from "./support.ts";

const server = (host: string, port = 6379) => ({ host, port });

describe("parseDirectory", () => {
  test.each([
    ["redis://r1", { servers: [server("r1")], tls: false, database: 0 }],
    ["redis://r1:1/", { servers: [server("r1", 1)], tls: false, database: 0 }],
    ["rediss://192.0.2.1/15", { servers: [server("192.0.2.1")], tls: true, database: 15 }],
    [
      "redis://[::1],r2:7/3",
      { servers: [server("::1"), server("r2", 7)], tls: false, database: 3 },
    ],
    [
      "redis://r1,r1:6379,r1:6380",
      { servers: [server("r1"), server("r1", 6380)], tls: false, database: 0 },
    ],
  ])("%s", (text, address) => expect(parseDirectory(text)).toEqual(address));

  test.each([
    ["", "must be redis://host:port"],
    ["r1", "must be redis://host:port"],
    ["REDIS://r1", "must be redis://host:port"],
    ["redis:///3", "must be redis://host:port"],
    ["redis://r1/x", "must be redis://host:port"],
    ["redis://r1?db=3", "use a host name"],
    ["redis://r1/3/4", "must be redis://host:port"],
    ["redis://r1/65536", "the database must be a whole number from 0 to 65535"],
    ["redis://r1,", '"": must be host:port'],
    ["redis://r1:0", "r1:0: the port must be"],
    ["redis://::1", "an IPv6 address goes in brackets"],
    ["redis://[fe80::1%eth0]", "an IPv6 zone is not supported"],
    ["redis://10.1", "use an IP address in full"],
    ["redis://user:password@r1", "leave out user and password"],
    [`redis://${Array.from({ length: 17 }, (_, i) => `r${i}`)}`, "must name at most 16 servers"],
  ])("refuses %j", (text, reason) => expect(refusal(() => parseDirectory(text))).toContain(reason));
});

describe("options that do not go together", () => {
  test("a directory needs a beacon id", () => {
    const message = "needs --beacon-id: a number other than 0, its own for each beacon";
    expect(refusal(() => run(["--directory=redis://r1"]))).toBe(`--directory ${message}`);
    expect(refusal(() => validateConfig({ directory: "redis://r1" }))).toStartWith(
      "directory needs beaconId",
    );
  });

  test("a directory needs an address to name this beacon by", () => {
    const directory = ["--beacon-id=1", "--directory=redis://r1"];
    const message = "needs --advertise-addr where --addr is every address";
    for (const addr of [":9001", "0.0.0.0:9001", "[::]:9001"])
      expect(refusal(() => run([...directory, `--addr=${addr}`]))).toStartWith(
        `--directory ${message}`,
      );
    run([...directory, "--addr=192.0.2.1:9001"]);
    run([...directory, "--advertise-addr=b1.example:9001"]);
  });

  test("certificates need TLS", () => {
    for (const directory of ["off", "redis://r1"])
      expect(
        refusal(() =>
          run(["--beacon-id=1", `--directory=${directory}`, "--directory-ca-file=ca.pem"]),
        ),
      ).toBe("--directory-ca-file needs --directory to be rediss://");
  });
});

test("a password that was written into the address is in no message", () => {
  const word = fc.string({ minLength: 1, maxLength: 150 }).map((text) => `pass${text}`);
  fc.assert(
    fc.property(
      word,
      word,
      fc.constantFrom("redis://", "rediss:", ""),
      (user, password, scheme) => {
        const url = `${scheme}${user}:${password}@r1:6379`;
        for (const read of [
          () => run([`--directory=${url}`]),
          () => run([], { BEACON_DIRECTORY: url }),
          () => validateConfig({ directory: url }),
        ]) {
          const message = refusal(read);
          expect(message.replace("leave out user and password", "")).not.toContain("pass");
          expect(message).toContain("***");
        }
      },
    ),
  );
});
