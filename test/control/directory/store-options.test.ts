/** What the store is told of the configuration, and that what its files hold is in no message. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { validateConfig } from "../../../src/config.ts";
import { storeOptions } from "../../../src/control/directory/store-options.ts";
import { refusal, temporaryFiles } from "../../config/support.ts";
import { installed } from "../../e2e/support/program.ts";
import { type Certificate, makeCertificate } from "../../support/websocket.ts";

const { file, folder, remove } = temporaryFiles();
afterAll(remove);

const ADDRESS = "redis://r1.example,[2001:db8::1]:7/3";
const options = (directoryAuthFile: string, more = {}) =>
  storeOptions(
    validateConfig({
      addr: "127.0.0.1:0",
      beaconId: 1,
      directory: ADDRESS,
      directoryAuthFile,
      ...more,
    }),
  );

test("the address, the prefix, and nothing from files that are not named", () => {
  expect(options("off", { directoryPrefix: "fleet-7" })).toEqual({
    servers: [
      { host: "r1.example", port: 6379 },
      { host: "2001:db8::1", port: 7 },
    ],
    tls: false,
    ca: undefined,
    user: "",
    password: "",
    database: 3,
    prefix: "fleet-7",
    authFileExposed: false,
  });
});

describe("the password's file", () => {
  test.each<[string, string, string]>([
    ["hunter2", "", "hunter2"],
    ["hunter2\n", "", "hunter2"],
    ["bob\nhunter2\n\n", "bob", "hunter2"],
    ["bob\r\n hunter 2 é \r\n", "bob", " hunter 2 é "],
    ["\nhunter2", "", "hunter2"],
  ])("%j", (content, user, password) => {
    expect(options(file(content))).toMatchObject({ user, password });
  });

  const form =
    "must hold the directory's password in one line of text, or the user in one and the password in the next";
  test.each<[string | Uint8Array, string]>([
    ["", form],
    ["\n\n", form],
    ["bob\nhunter2\nhunter3", form],
    ["hunter2\0", form],
    ["bob\thunter2", form],
    [Uint8Array.of(0x68, 0x75, 0x6e, 0xff), form],
    ["hunter2".repeat(1000), "the directory's password file is larger than 4096 bytes"],
  ])("refuses #%#", (content, reason) => {
    const path = file(content);
    expect(refusal(() => options(path))).toBe(`${path}: ${reason}`);
  });

  test("must be there, and is read anew each time", () => {
    const path = join(folder, "auth");
    expect(refusal(() => options(path))).toBe(
      `${path}: the directory's password file cannot be read (ENOENT)`,
    );
    for (const password of ["first", "second"]) {
      writeFileSync(path, password);
      expect(options(path).password).toBe(password);
    }
  });

  test.each([
    [0o600, false],
    [0o640, true],
    [0o604, true],
  ])("of mode %o: exposed is %p", (mode, authFileExposed) => {
    const path = file("hunter2");
    chmodSync(path, mode);
    expect(options(path).authFileExposed).toBe(authFileExposed);
  });
});

const hasOpenssl = installed("openssl");
describe.skipIf(!hasOpenssl)(`the CA's file${hasOpenssl ? "" : " (needs openssl)"}`, () => {
  let ca: Certificate;
  beforeAll(() => {
    ca = makeCertificate(folder, "ca");
  });
  const withCa = (directoryCaFile: string) =>
    options("off", { directory: "rediss://r1", directoryCaFile });

  test("is taken as it is, with more than one certificate, too", () => {
    expect(withCa(ca.certPath)).toMatchObject({ tls: true, ca: ca.cert });
    const both = file(ca.cert + ca.cert);
    expect(withCa(both).ca).toBe(ca.cert + ca.cert);
  });

  test("is refused where there is none in it", () => {
    for (const path of [file("x"), ca.keyPath, file(ca.cert.replace("MII", "MIX")), file("")])
      expect(refusal(() => withCa(path))).toBe(
        `${path}: holds no certificate in PEM, or one that is damaged`,
      );
    rmSync(ca.certPath);
    expect(refusal(() => withCa(ca.certPath))).toContain(
      "the directory's CA file cannot be read (ENOENT)",
    );
  });
});
