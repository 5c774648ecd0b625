/** The registry's token: from a file, and in no message. */
import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { maskedConfig, validateConfig } from "../../src/config.ts";
import { readAdminToken } from "../../src/control/mesh/registry-token.ts";
import { refusal, run, temporaryFiles } from "./support.ts";

const { file, folder, remove } = temporaryFiles();
afterAll(remove);

const FLAG = "--registry-admin-token";
const FILE_FLAG = "--registry-admin-token-file";
const ENV = "BEACON_REGISTRY_ADMIN_TOKEN";
const REASON = "must be a string of printable ASCII without spaces, at most 1024 characters";

describe("the token's file", () => {
  test.each([
    ["s3cret", "s3cret"],
    ["s3cret\n", "s3cret"],
    ["\ufeff \t\r\ns3cret\r\n\n", "s3cret"],
    ["off", "off"],
    ["x".repeat(1024) + " ".repeat(3072), "x".repeat(1024)],
  ])("%#", (content, token) => {
    const path = file(content);
    const configs = [
      run([FILE_FLAG, path]),
      run([], { [`${ENV}_FILE`]: path }),
      run(["--config", file({ "registry-admin-token-file": path })]),
      validateConfig({ registryAdminTokenFile: path }),
    ];
    expect(configs.map(readAdminToken)).toEqual(configs.map(() => token));
  });

  test.each([
    ["", "the token file is empty"],
    [" \n\t", "the token file is empty"],
    ["hunter2 hunter3", `the token in it ${REASON}`],
    ["hunter2\nhunter3", `the token in it ${REASON}`],
    ["hunter2\0", `the token in it ${REASON}`],
    ["hünter2", `the token in it ${REASON}`],
    [Uint8Array.of(0x68, 0x75, 0x6e, 0xff), `the token in it ${REASON}`],
    ["x".repeat(1025), `the token in it ${REASON}`],
    [" ".repeat(4097), "the token file is larger than 4096 bytes"],
  ])("refuses #%#", (content, reason) => {
    const path = file(content);
    const message = `${path}: ${reason}`;
    expect(refusal(() => readAdminToken(run([FILE_FLAG, path])))).toBe(message);
  });

  test("must be readable, and is read in bounds", () => {
    const missing = join(folder, "missing");
    const reason = "the token file cannot be read";
    expect(refusal(() => readAdminToken(run([FILE_FLAG, missing])))).toBe(
      `${missing}: ${reason} (ENOENT)`,
    );
    expect(refusal(() => readAdminToken(run([FILE_FLAG, folder])))).toBe(
      `${folder}: ${reason} (EISDIR)`,
    );
    expect(refusal(() => readAdminToken(run([FILE_FLAG, "/dev/zero"])))).toBe(
      "/dev/zero: the token file is larger than 4096 bytes",
    );
  });

  test("is read only where it is in force", () => {
    const missing = { [`${ENV}_FILE`]: join(folder, "missing") };
    expect(readAdminToken(run([FILE_FLAG, file("s3cret")], missing))).toBe("s3cret");
    expect(readAdminToken(run([FILE_FLAG, "off", FLAG, "s3cret"], missing))).toBe("s3cret");
  });
});

describe("a token and a file", () => {
  const path = file("s3cret");
  const message = `${FILE_FLAG}: ${FLAG} sets the same; give one of them`;

  test("are one too many, at whatever levels", () => {
    const tokenInFile = file({ "registry-admin-token": "s3cret" });
    expect(refusal(() => run([FLAG, "s3cret", FILE_FLAG, path]))).toBe(message);
    expect(refusal(() => run([FILE_FLAG, path], { [ENV]: "s3cret" }))).toBe(message);
    expect(refusal(() => run([FLAG, "s3cret"], { [`${ENV}_FILE`]: path }))).toBe(message);
    expect(refusal(() => run([FILE_FLAG, path, "--config", tokenInFile]))).toBe(message);
    expect(
      refusal(() => validateConfig({ registryAdminToken: "s3cret", registryAdminTokenFile: path })),
    ).toBe("registryAdminTokenFile: registryAdminToken sets the same; give one of them");
  });

  test("are not when one of them is none", () => {
    expect(readAdminToken(run([`${FLAG}=`, FILE_FLAG, path], { [ENV]: "other" }))).toBe("s3cret");
    expect(run([FLAG, "other", FILE_FLAG, "off"]).registryAdminToken).toBe("other");
  });
});

describe("no message shows a token", () => {
  test.each([
    [[FLAG, "hunter2 hunter3"], `${FLAG} ***: ${REASON}`],
    [[`-registry-admin-token=hunter2\n`], `${FLAG} ***: ${REASON}`],
    [[FLAG, "-hunter2"], `${FLAG}: needs a value, not ***`],
    [[FLAG, "correct", "hunter2"], "***: only flags are taken (see --help)"],
    [["hunter2", `${FLAG}=x`], "***: only flags are taken (see --help)"],
    [
      ["--registry-admin-tokn=hunter2"],
      `--registry-admin-tokn: unknown flag; did you mean ${FLAG}? (see --help)`,
    ],
    [
      ["--registry-admin-tokn", "hunter2"],
      `--registry-admin-tokn: unknown flag; did you mean ${FLAG}? (see --help)`,
    ],
    [["---registry-admin-token=hunter2"], "---registry-admin-token: unknown flag (see --help)"],
  ])("%j", (argv, message) => expect(refusal(() => run(argv))).toBe(message));

  test("of the environment, of a file, of code", () => {
    expect(refusal(() => run([], { [ENV]: "hunter2 x" }))).toBe(`${ENV}=***: ${REASON}`);
    for (const value of ["hunter2 x", 7, ["hunter2"], { hunter2: 1 }, true]) {
      const path = file({ "registry-admin-token": value });
      const key = `${path}: "registry-admin-token": ***`;
      expect(refusal(() => run(["--config", path]))).toBe(`${key}: ${REASON}`);
      expect(refusal(() => validateConfig({ registryAdminToken: value } as never))).toBe(
        `registryAdminToken ***: ${REASON}`,
      );
    }
  });

  test.each([
    '{"registry-admin-token": hunter2}',
    "{\"registry-admin-token\": 'hunter2'}",
    '{"registry-admin-token": "hunter2}',
    '{"registry-admin-token": "hunter2" hunter2}',
    '{"registry-admin-token": "hun\\uter2"}',
    "hunter2",
    '{"registry-admin-token": hunter2"hunter2',
  ])("of a file that is not JSON: %s", (content) => {
    const path = file(content);
    const message = refusal(() => run(["--config", path]));
    expect(message).toStartWith(`${path}: the config file is not JSON: `);
    expect(message).not.toContain("ter2");
  });

  test("whatever it is, wherever it is given", () => {
    // Eight letters at least, so that none of them stands in a message by chance; one bad
    // character.
    const bad = fc
      .tuple(
        fc.string({ minLength: 8 }),
        fc.constantFrom(" ", "\n", "ü", "\0"),
        fc.string({ minLength: 8 }),
      )
      .map((parts) => parts.join(""));
    fc.assert(
      fc.property(bad, (token) => {
        const messages = [
          refusal(() => run([`${FLAG}=${token}`])),
          refusal(() => run([], { [ENV]: token })),
          refusal(() => run(["--config", file({ "registry-admin-token": token })])),
          refusal(() => validateConfig({ registryAdminToken: token })),
        ];
        for (const message of messages)
          expect(message).toMatch(
            /(^| |=)(\*\*\*|"registry-admin-token": \*\*\*): must be a string of/,
          );
        for (const message of messages) expect(message).not.toContain(token.slice(0, 8));
      }),
    );
  });
});

describe("maskedConfig", () => {
  test("hides a token and nothing else", () => {
    const config = run([FLAG, "s3cret", "--batch=3"]);
    expect(maskedConfig(config)).toEqual({ ...config, registryAdminToken: "***" });
    expect(config.registryAdminToken).toBe("s3cret");
  });

  test("shows that there is none", () => expect(maskedConfig(run([]))).toEqual({ ...run([]) }));
});
