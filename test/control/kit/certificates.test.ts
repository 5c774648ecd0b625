import { beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readTlsFiles } from "../../../src/control/kit/certificates.ts";
import { refusal } from "../../config/support.ts";
import { installed } from "../../e2e/support/program.ts";
import { temporaryFolder } from "../../support/folder.ts";
import { type Certificate, makeCertificate, openssl } from "../../support/websocket.ts";

const KINDS = {
  "EC P-256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
  "EC P-384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp384r1"],
  "RSA 2048": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
  Ed25519: ["-algorithm", "ED25519"],
};

const hasOpenssl = installed("openssl");

describe.skipIf(!hasOpenssl)(`certificates and keys${hasOpenssl ? "" : " (needs openssl)"}`, () => {
  const folder = temporaryFolder();

  let ec: Certificate;
  let rsa: Certificate;
  beforeAll(() => {
    ec = makeCertificate(folder, "ec");
    rsa = makeCertificate(folder, "rsa", KINDS["RSA 2048"]);
  });

  let files = 0;
  function file(content: string | Uint8Array): string {
    const path = join(folder, `${files++}.pem`);
    writeFileSync(path, content);
    return path;
  }
  const read = (path: string) => readFileSync(path, "utf8");

  /** Whether a server takes what was read, and is trusted by who trusts the certificate. */
  async function serves(certPath: string, keyPath: string, ca: string): Promise<string> {
    const tls = readTlsFiles(certPath, keyPath);
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      tls,
      fetch: () => new Response("well"),
    });
    try {
      return await (await fetch(server.url, { tls: { ca } })).text();
    } finally {
      await server.stop(true);
    }
  }

  describe("that belong together", () => {
    test.each(Object.entries(KINDS))("%s", async (name, kind) => {
      const { certPath, keyPath, cert } = makeCertificate(folder, name, kind);
      expect(readTlsFiles(certPath, keyPath)).toEqual({ cert, key: read(keyPath) });
      expect(await serves(certPath, keyPath, cert)).toBe("well");
    });

    test("an RSA key as PKCS #1, an EC key as SEC 1, with its parameters before it", async () => {
      const [pkcs1, sec1] = [join(folder, "pkcs1.key"), join(folder, "sec1.key")];
      openssl("rsa", "-in", rsa.keyPath, "-traditional", "-out", pkcs1);
      openssl("ec", "-in", ec.keyPath, "-out", sec1);
      expect(read(pkcs1)).toStartWith("-----BEGIN RSA PRIVATE KEY-----");
      expect(read(sec1)).toStartWith("-----BEGIN EC PRIVATE KEY-----");
      expect(await serves(rsa.certPath, pkcs1, rsa.cert)).toBe("well");
      expect(await serves(ec.certPath, sec1, ec.cert)).toBe("well");
      const parameters =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"; // P-256
      expect(await serves(ec.certPath, file(parameters + read(sec1)), ec.cert)).toBe("well");
    });

    test("a chain: the server's certificate first, then who signed it", async () => {
      const [request, cert, key] = ["leaf.csr", "leaf.crt", "leaf.key"].map((name) =>
        join(folder, name),
      );
      openssl("genpkey", ...KINDS["EC P-256"], "-out", key!);
      openssl("req", "-new", "-key", key!, "-subj", "/CN=leaf", "-out", request!);
      const extensions = file("subjectAltName=IP:127.0.0.1\n");
      openssl(
        ...[
          "x509",
          "-req",
          "-in",
          request!,
          "-CA",
          rsa.certPath,
          "-CAkey",
          rsa.keyPath,
          "-set_serial",
          "7",
        ],
        ...["-days", "2", "-extfile", extensions, "-out", cert!],
      );
      const chain = read(cert!) + rsa.cert;
      expect(readTlsFiles(file(chain), key!).cert).toBe(chain);
      expect(await serves(file(chain), key!, rsa.cert)).toBe("well");
      const wrongOrder = file(rsa.cert + read(cert!));
      expect(refusal(() => readTlsFiles(wrongOrder, key!))).toContain(
        "is not the key of the certificate in",
      );
    });

    test("lines that end as Windows ends them, text around them, both in one file", async () => {
      const crlf = (path: string) => file(read(path).replaceAll("\n", "\r\n"));
      expect(await serves(crlf(ec.certPath), crlf(ec.keyPath), ec.cert)).toBe("well");
      const text = (path: string) => file(`subject=CN = ec\n\n${read(path)}\nthe end\n`);
      expect(await serves(text(ec.certPath), text(ec.keyPath), ec.cert)).toBe("well");
      const both = file(read(ec.keyPath) + ec.cert);
      expect(await serves(both, both, ec.cert)).toBe("well");
    });

    test("a certificate that has run out: that is for its owner to see to, and no reason to serve nobody", () => {
      const [request, old] = [join(folder, "old.csr"), join(folder, "old.crt")];
      openssl("req", "-new", "-key", ec.keyPath, "-subj", "/CN=old", "-out", request);
      openssl(..."x509 -req -days -1 -signkey".split(" "), ec.keyPath, "-in", request, "-out", old);
      expect(readTlsFiles(old, ec.keyPath).cert).toBe(read(old));
    });
  });

  /** Refused, with the path, in one line, and without a word of what is in the files. */
  function refused(certPath: string, keyPath: string): string {
    const message = refusal(() => readTlsFiles(certPath, keyPath));
    expect(message).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
    for (const path of [certPath, keyPath]) {
      let lines: string[] = [];
      try {
        lines = readFileSync(path, "latin1").split("\n");
      } catch {} // it is not there, or no file
      for (const line of lines) if (line.length > 12) expect(message).not.toContain(line);
    }
    return message;
  }

  const NO_CERT = "holds no certificate in PEM, or one that is damaged";
  const NO_KEY = "holds no private key in PEM without a password";

  describe("a certificate that is none", () => {
    test.each<[string, () => string | Uint8Array]>([
      ["an empty file", () => ""],
      ["text", () => "no certificate at all\n"],
      ["zeros", () => new Uint8Array(1000)],
      ["random bytes", () => crypto.getRandomValues(new Uint8Array(1000))],
      ["its key", () => read(ec.keyPath)],
      ["one cut short", () => ec.cert.slice(0, 200)],
      ["one without its last line", () => ec.cert.replace(/-----END.*\n/, "")],
      ["one without its first line", () => ec.cert.replace(/-----BEGIN.*\n/, "")],
      ["one with a broken line", () => ec.cert.replace(/\n.{20}/, "\n????????????????????")],
      ["a frame around nothing", () => "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"],
      [
        "a frame around text",
        () => "-----BEGIN CERTIFICATE-----\naGVsbG8gaGVsbG8=\n-----END CERTIFICATE-----\n",
      ],
      ["UTF-16", () => Buffer.from(ec.cert, "utf16le")],
    ])("%s", (_, content) => {
      const path = file(content());
      expect(refused(path, ec.keyPath)).toBe(`${path}: ${NO_CERT}`);
    });

    test("DER", () => {
      const der = join(folder, "der.crt");
      openssl("x509", "-in", ec.certPath, "-outform", "der", "-out", der);
      expect(refused(der, ec.keyPath)).toBe(`${der}: ${NO_CERT}`);
    });

    // Otherwise a server would have to find out, when it is too late.
    test.each<[string, () => string]>([
      ["that is cut short", () => rsa.cert.slice(0, 300)],
      ["with a broken line", () => rsa.cert.replace(/\n.{20}/, "\n????????????????????")],
      [
        "that is text",
        () => "-----BEGIN CERTIFICATE-----\naGVsbG8gaGVsbG8=\n-----END CERTIFICATE-----\n",
      ],
    ])("a chain with a second one %s", (_, second) => {
      const path = file(ec.cert + second());
      expect(refused(path, ec.keyPath)).toStartWith(`${path}: `);
    });
  });

  describe("a key that is none", () => {
    test.each<[string, () => string | Uint8Array]>([
      ["an empty file", () => ""],
      ["text", () => "no key at all\n"],
      ["random bytes", () => crypto.getRandomValues(new Uint8Array(1000))],
      ["its certificate", () => ec.cert],
      ["one cut short", () => read(ec.keyPath).slice(0, 120)],
      [
        "one with a broken line",
        () => read(ec.keyPath).replace(/\n.{20}/, "\n????????????????????"),
      ],
      [
        "a frame around text",
        () => "-----BEGIN PRIVATE KEY-----\naGVsbG8gaGVsbG8=\n-----END PRIVATE KEY-----\n",
      ],
    ])("%s", (_, content) => {
      const path = file(content());
      expect(refused(ec.certPath, path)).toBe(`${path}: ${NO_KEY}`);
    });

    test("DER, a public key, one with a password in either form", () => {
      const paths = ["key.der", "public.pem", "pkcs8.enc", "sec1.enc"].map((name) =>
        join(folder, name),
      );
      const [der, publicKey, pkcs8, sec1] = paths as [string, string, string, string];
      openssl("pkey", "-in", ec.keyPath, "-outform", "der", "-out", der);
      openssl("pkey", "-in", ec.keyPath, "-pubout", "-out", publicKey);
      openssl(
        ..."pkcs8 -topk8 -v2 aes-256-cbc -passout pass:secret -in".split(" "),
        ec.keyPath,
        "-out",
        pkcs8,
      );
      openssl(..."ec -aes256 -passout pass:secret -in".split(" "), ec.keyPath, "-out", sec1);
      expect(read(sec1)).toContain("ENCRYPTED");
      for (const path of paths) expect(refused(ec.certPath, path)).toBe(`${path}: ${NO_KEY}`);
    });
  });

  describe("files that do not belong together", () => {
    test("the key of another certificate, of the same kind or another", () => {
      const other = makeCertificate(folder, "other");
      for (const { keyPath } of [rsa, other])
        expect(refused(ec.certPath, keyPath)).toBe(
          `${keyPath}: is not the key of the certificate in ${ec.certPath}`,
        );
    });

    test("taken for each other", () => {
      expect(refused(ec.keyPath, ec.certPath)).toBe(`${ec.keyPath}: ${NO_CERT}`);
    });
  });

  describe("files that cannot be read", () => {
    test("that are not there, or folders", () => {
      const absent = join(folder, "absent.pem");
      mkdirSync(join(folder, "folder"));
      for (const [path, code] of [
        [absent, "ENOENT"],
        [join(absent, "below"), "ENOENT"],
        [join(ec.certPath, "below"), "ENOTDIR"],
        [join(folder, "folder"), "EISDIR"],
      ] as const) {
        expect(refused(path, ec.keyPath)).toBe(`${path}: the certificate cannot be read (${code})`);
        expect(refused(ec.certPath, path)).toBe(`${path}: the key cannot be read (${code})`);
      }
    });

    const isRoot = process.getuid?.() === 0;
    test.skipIf(isRoot)(
      `for lack of rights${isRoot ? " (needs another user than root)" : ""}`,
      () => {
        const path = file(read(ec.keyPath));
        chmodSync(path, 0);
        expect(refused(ec.certPath, path)).toBe(`${path}: the key cannot be read (EACCES)`);
      },
    );

    test("with names that would break a line", () => {
      expect(refused("a\nb\u2028\u001b[2J.pem", ec.keyPath)).toContain("cannot be read (ENOENT)");
    });
  });
});
