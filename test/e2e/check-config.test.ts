/** `beacon check-config` and the server's start agree on the files that a configuration names. */
import { afterEach, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../support/folder.ts";
import { type Certificate, makeCertificate, openssl } from "../support/websocket.ts";
import { CLEAN_ENV, installed, MAIN, Programs } from "./support/program.ts";

const folder = temporaryFolder();
chmodSync(folder, 0o755);
const programs = new Programs();
afterEach(() => programs.kill());

let files = 0;
function file(content: string | Uint8Array, mode = 0o600): string {
  const path = join(folder, `file-${files++}`);
  writeFileSync(path, content, { mode });
  return path;
}

const KEYS = JSON.stringify({ 1: Buffer.alloc(32, 1).toString("base64") });
const FLAGS = ["--addr=127.0.0.1:0", "--http=off", "--max-nodes=1000", "--workers=1"];
const WSS = () => ["--wss=127.0.0.1:0", `--wss-keys=${file(KEYS)}`];
const DIRECTORY = ["--directory=rediss://127.0.0.1:1", "--beacon-id=1"];

/** The outcome of check-config: its exit code, and the lines on standard error. */
async function check(flags: readonly string[], before: readonly string[] = []) {
  const program = programs.spawn([
    ...before,
    process.execPath,
    MAIN,
    "check-config",
    ...FLAGS,
    ...flags,
  ]);
  const code = await program.exited();
  const problems = program.stderr.split("\n").filter(Boolean);
  return { code, problems, program };
}

/** The outcome of a start: its exit code, and why. */
async function start(flags: readonly string[], before: readonly string[] = []) {
  const program = programs.spawn([
    ...before,
    process.execPath,
    MAIN,
    ...FLAGS,
    "--log-format=json",
    ...flags,
  ]);
  const code = await program.exited();
  const fatal = program.lines
    .map((line) => JSON.parse(line))
    .find(({ level }) => level === "fatal");
  return { code, reason: fatal?.msg ?? program.stderr.trim().replace(/^beacon: /, "") };
}

const P224 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp224r1"];
const hasOpenssl = installed("openssl");

describe.skipIf(!hasOpenssl)(
  "a mistake in a file is reported in the same words by both, with exit code 2",
  () => {
    let good: Certificate;
    let other: Certificate;
    beforeAll(() => {
      good = makeCertificate(folder, "good");
      other = makeCertificate(folder, "other");
    });
    const tls = (cert: string, key: string) => [
      ...WSS(),
      `--wss-tls-cert=${cert}`,
      `--wss-tls-key=${key}`,
    ];
    const locked = () => {
      const path = join(folder, "locked.pem");
      openssl("pkcs8", "-topk8", "-in", good.keyPath, "-passout", "pass:secret", "-out", path);
      return path;
    };

    test.each<[string, () => string[], RegExp]>([
      [
        "a certificate that is none",
        () => tls(file("no PEM"), good.keyPath),
        /holds no certificate/,
      ],
      [
        "another certificate's key",
        () => tls(good.certPath, other.keyPath),
        /is not the key of the certif/,
      ],
      ["a key with a password", () => tls(good.certPath, locked()), /holds no private key/],
      [
        "a key that TLS has no algorithm for",
        () => {
          const { certPath, keyPath } = makeCertificate(folder, "p224", P224);
          return tls(certPath, keyPath);
        },
        /holds a certificate that TLS does not accept/,
      ],
      ["a certificate that is not there", () => tls(join(folder, "none"), good.keyPath), /ENOENT/],
      [
        "a gossip key that is too short",
        () => [`--gossip-key-file=${file("short")}`],
        /at least 32 characters/,
      ],
      [
        "three gossip keys",
        () => [`--gossip-key-file=${file(`${"k".repeat(40)}\n`.repeat(3))}`],
        /more than 2 l/,
      ],
      [
        "an admin token that is too short",
        () => [`--admin-token-file=${file("short")}`],
        /at least 16 charac/,
      ],
      [
        "an empty registry token",
        () => [`--registry-admin-token-file=${file("")}`],
        /token file is empty/,
      ],
      [
        "nodes' keys that are no JSON",
        () => ["--wss=127.0.0.1:0", `--wss-keys=${file("x")}`],
        /is not JSON/,
      ],
      [
        "a node's key that is none",
        () => ["--wss=127.0.0.1:0", `--wss-keys=${file('{"1":"x"}')}`],
        /key of node/,
      ],
      [
        "keys for grants alone",
        () => ["--require-punch-grant=on", `--wss-keys=${file("x")}`],
        /is not JSON/,
      ],
      [
        "a directory's password of three lines",
        () => [...DIRECTORY, `--directory-auth-file=${file("a\nb\nc\n")}`],
        /must hold the directory's password/,
      ],
      [
        "a directory's CA that is none",
        () => [...DIRECTORY, `--directory-ca-file=${file("x")}`],
        /holds no certificate/,
      ],
      ["a state file that is none", () => [`--state-file=${file("x")}`], /is not a state file/],
    ])("%s", async (_, flagsOf, reason) => {
      const flags = flagsOf();
      const started = await start(flags);
      expect([started.code, started.reason]).toEqual([2, expect.stringMatching(reason)]);
      const checked = await check(flags);
      expect([checked.code, checked.problems]).toEqual([2, [`beacon: ${started.reason}`]]);
    });

    test("all of them at once, by check-config", async () => {
      const { code, problems } = await check([
        ...tls(file("x"), file("x")).filter((flag) => !flag.startsWith("--wss-keys")),
        ...[
          `--wss-keys=${file("x")}`,
          `--gossip-key-file=${file("x")}`,
          `--admin-token-file=${file("x")}`,
        ],
        ...[...DIRECTORY, `--directory-auth-file=${file("")}`, `--state-file=${file("x")}`],
      ]);
      expect([code, problems.length]).toEqual([2, 6]);
    });

    test("good files: a start that goes on, and exit code 0", async () => {
      const flags = [
        ...tls(good.certPath, good.keyPath),
        `--gossip-key-file=${file("k".repeat(40))}`,
        `--admin-token-file=${file("t".repeat(40))}`,
        `--state-file=${join(folder, "nodes")}`,
      ];
      const { code, problems } = await check(flags);
      expect([code, problems]).toEqual([0, []]);
      const program = programs.spawn([
        process.execPath,
        MAIN,
        ...FLAGS,
        "--log-format=json",
        ...flags,
      ]);
      await program.listening();
    });

    test.each<[string, string, RegExp]>([
      ["expired", "-1", /the certificate expired on \d{4}-\d\d-\d\d \d\d:\d\d UTC: renew it/],
      ["valid for long", "90", /^$/],
    ])(
      "a certificate that is %s: both warn, and the server starts",
      async (name, days, warning) => {
        const [request, cert] = [join(folder, `${name}.csr`), join(folder, `${name}.crt`)];
        openssl("req", "-new", "-key", good.keyPath, "-subj", "/CN=x", "-out", request);
        openssl(
          "x509",
          "-req",
          "-days",
          days,
          "-signkey",
          good.keyPath,
          "-in",
          request,
          "-out",
          cert,
        );
        const flags = tls(cert, good.keyPath);
        const checked = await check(flags);
        expect(checked.code).toBe(0);
        expect(checked.problems.join()).toMatch(warning);
        const program = programs.spawn([
          process.execPath,
          MAIN,
          ...FLAGS,
          "--log-format=json",
          ...flags,
        ]);
        await program.listening();
        const warnings = program
          .log()
          .filter(({ level, msg }) => level === "warn" && msg.includes("certificate"));
        expect(warnings.map(({ msg }) => `beacon: warning: ${msg}`)).toEqual(checked.problems);
      },
    );

    test("files that others may read: both warn, in the same words", async () => {
      const flags = [
        `--gossip-key-file=${file("k".repeat(40), 0o644)}`,
        `--admin-token-file=${file("t".repeat(40), 0o644)}`,
        ...[...DIRECTORY, `--directory-auth-file=${file("secret", 0o644)}`],
      ];
      const checked = await check(flags);
      expect([checked.code, checked.problems.length]).toEqual([0, 3]);
      const program = programs.spawn([
        process.execPath,
        MAIN,
        ...FLAGS,
        "--log-format=json",
        ...flags,
      ]);
      await program.listening();
      const warnings = program.log().filter(({ msg }) => msg.includes("chmod 600"));
      expect(warnings.map(({ msg }) => `beacon: warning: ${msg}`)).toEqual(checked.problems);
    });
  },
);

const NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
const isRoot = process.getuid?.() === 0;
const canBeNobody =
  isRoot && installed("setpriv") && Bun.spawnSync([...NOBODY, "test", "-r", MAIN]).success;

test.skipIf(!canBeNobody)(
  "a file that this user may not read is refused by both (needs root, setpriv, and sources that all may read)",
  async () => {
    const flags = [`--gossip-key-file=${file("k".repeat(40))}`];
    expect((await start(flags, NOBODY)).code).toBe(2);
    const { code, problems } = await check(flags, NOBODY);
    expect([code, problems.join()]).toEqual([
      2,
      expect.stringContaining("cannot be read (EACCES)"),
    ]);
    const asRoot = await check(flags);
    expect(asRoot.code).toBe(0);
    expect(asRoot.program.lines.join()).toInclude(
      "checked as root, who may read every file: --as-service",
    );
  },
);

describe.skipIf(!canBeNobody || !installed("nsenter"))(
  "--as-service (needs root, setpriv, nsenter)",
  () => {
    /** A service of user 65534 with a file of its own at /mnt, and a systemctl that knows it. */
    async function service(): Promise<Record<string, string>> {
      const own = `mount -t tmpfs tmpfs /mnt && printf %040d 7 >/mnt/key && chown 65534:65534 /mnt/key &&
      chmod 400 /mnt/key && echo ready && exec ${NOBODY.join(" ")} sleep infinity`;
      const program = programs.spawn(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", own],
        {
          env: { ...CLEAN_ENV, BEACON_GOSSIP_KEY_FILE: "/mnt/key" },
        },
      );
      await program.line("ready", (line) => (line === "ready" ? true : undefined));
      const bin = join(folder, `bin-${files++}`);
      mkdirSync(bin);
      writeFileSync(
        join(bin, "systemctl"),
        `#!/bin/sh\n[ "$5" = some.service ] && echo ${program.pid} || echo 0\n`,
      );
      chmodSync(join(bin, "systemctl"), 0o755);
      return { ...CLEAN_ENV, PATH: `${bin}:${process.env["PATH"]}` };
    }
    const run = async (env: Record<string, string>, ...args: string[]) => {
      const program = programs.spawn([process.execPath, MAIN, "check-config", ...args], { env });
      return { code: await program.exited(), output: program.output() };
    };

    test("checks as the service's user, with its environment and its mounts", async () => {
      const env = await service();
      const good = await run(env, "--as-service", "some.service", ...FLAGS);
      expect(good.output).toInclude("BEACON_GOSSIP_KEY_FILE=/mnt/key");
      expect(good.output).not.toInclude("as root");
      expect(good.code).toBe(0);
      const flag = `--admin-token-file=${file("t".repeat(40))}`;
      expect((await run(env, ...FLAGS, flag)).code).toBe(0);
      const bad = await run(env, "--as-service", "some.service", ...FLAGS, flag);
      expect(bad.output).toInclude("the admin token file cannot be read (EACCES)");
      expect(bad.code).toBe(2);
    });

    test("refuses a service that does not run", async () => {
      const { code, output } = await run(await service(), "--as-service=other.service");
      expect(output).toInclude(
        "--as-service other.service: the service does not run: start it first",
      );
      expect(code).toBe(2);
    });
  },
);
