/**
 * What the beacon is told in confidence: it says it to nobody, whatever it is asked, whatever goes
 * wrong.
 */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../support/folder.ts";
import { ScriptedRegistry } from "../support/scripted-registry.ts";
import { makeCertificate } from "../support/websocket.ts";
import { installed, Programs } from "./support/program.ts";
import { TEST_TIMEOUT_MS, until } from "./support/wait.ts";

setDefaultTimeout(2 * TEST_TIMEOUT_MS);

const hasOpenssl = installed("openssl");
const folder = temporaryFolder();
const programs = new Programs();
afterEach(() => programs.kill());

/** No eight letters of them in a row are found in anything else. */
const [REGISTRY_TOKEN, ADMIN_TOKEN, GOSSIP_KEY, GOSSIP_KEY_BEFORE] = [
  "qX7vZk2mWp9sTb4nRj6cLh3d",
  "yF5gVx8wQz1kNm7tBr2pJd4s",
  "hK9cXv3bMq6zWj2nTf8gPd5rLs7yVx1k",
  "tN4wRz7jBk2vGx5mQc8hFp3sYd9lJq6x",
];

/** Parts of a secret that nothing else looks like. */
function partsOf(secret: string): string[] {
  const PART_CHARS = 8;
  return Array.from({ length: secret.length - PART_CHARS + 1 }, (_, at) =>
    secret.slice(at, at + PART_CHARS),
  );
}

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

test.skipIf(!hasOpenssl)(
  `no output of a run has a part of a secret in it${hasOpenssl ? "" : " (needs openssl)"}`,
  async () => {
    const registry = await ScriptedRegistry.listen();
    const { certPath, keyPath } = makeCertificate(folder, "beacon");
    const tlsKey = readFileSync(keyPath, "utf8").split("\n")[1]!;
    const [adminFile, gossipFile] = [
      file("admin", `${ADMIN_TOKEN}\n`),
      file("gossip", `${GOSSIP_KEY}\n${GOSSIP_KEY_BEFORE}\n`),
    ];
    const flags = [
      ...[
        "--addr=127.0.0.1:0",
        "--http=127.0.0.1:0",
        "--wss=127.0.0.1:0",
        "--workers=1",
        "--max-nodes=1000",
      ],
      ...["--log-format=json", "--log-level=trace", "--beacon-id=7", "--peers=127.0.0.1:9"],
      ...[
        "--gossip-interval=100ms",
        "--registry-interval=100ms",
        `--registry=127.0.0.1:${registry.port}`,
      ],
      ...[`--admin-token-file=${adminFile}`, `--gossip-key-file=${gossipFile}`],
      ...[`--wss-tls-cert=${certPath}`, `--wss-tls-key=${keyPath}`],
    ];
    const env = { BEACON_REGISTRY_ADMIN_TOKEN: REGISTRY_TOKEN };
    const program = programs.beacon(flags, env);
    const said: string[] = [];
    try {
      const { http } = await program.listening();
      await until("the registry is told the token", () =>
        registry.requests.some((request) => request["admin_token"] === REGISTRY_TOKEN),
      );
      said.push(readFileSync(`/proc/${program.pid}/cmdline`, "utf8"));

      const post = async (authorization: string, body: string) => {
        const headers = { authorization };
        const answer = await fetch(new URL("api/breakers/relay", http), {
          method: "POST",
          headers,
          body,
        });
        said.push(await answer.text(), JSON.stringify([...answer.headers]));
        return answer.status;
      };
      expect(await post(`Bearer ${ADMIN_TOKEN}`, '{"on":false}')).toBe(200);
      expect(await post(`Bearer ${ADMIN_TOKEN}`, `{"on":"${ADMIN_TOKEN}"}`)).toBe(400);
      expect(await post(`Bearer ${ADMIN_TOKEN}x`, "")).toBe(401);
      expect(await post(`Basic ${ADMIN_TOKEN}`, "")).toBe(401);
      for (const path of [
        "healthz",
        "readyz",
        "metrics",
        "api/stats",
        "api/breakers",
        `${ADMIN_TOKEN}`,
      ]) {
        const answer = await fetch(new URL(path, http));
        said.push(await answer.text(), JSON.stringify([...answer.headers]));
      }

      /** Reads everything again. @returns whether it was taken */
      const reload = async () => {
        const from = program.lines.length;
        program.signal("SIGHUP");
        return (await program.logged(/^configuration (not )?reloaded/, from)).level === "info";
      };
      expect(await reload()).toBe(true);
      const pem = readFileSync(keyPath, "utf8");
      for (const [path, good, broken] of [
        [adminFile, ADMIN_TOKEN, `${ADMIN_TOKEN} \u00e4`],
        [gossipFile, GOSSIP_KEY, `${GOSSIP_KEY} ${GOSSIP_KEY_BEFORE} \u00e4`],
        [keyPath, pem, pem.replace("-----BEGIN", "-----BROKEN")],
      ] as const) {
        writeFileSync(path, broken);
        expect([path, await reload()]).toEqual([path, false]);
        writeFileSync(path, good);
        expect([path, await reload()]).toEqual([path, true]);
      }
      program.signal("SIGTERM");
      expect(await program.exited()).toBe(0);
    } finally {
      await registry.close();
    }
    said.push(program.output());

    // Starts that fail, or only tell something; with the secrets where they do not belong, too.
    const broken = file("broken", `${ADMIN_TOKEN} \u00e4`);
    const config = file(
      "config.json",
      JSON.stringify({ "registry-admin-token": [REGISTRY_TOKEN] }),
    );
    for (const [args, more] of [
      [["--help"], env],
      [["--version"], env],
      [[...flags, `--admin-token-file=${broken}`], env],
      [[...flags, `--gossip-key-file=${broken}`], env],
      [[...flags, `--wss-tls-key=${adminFile}`], env],
      [[...flags, `--wss-tls-cert=${gossipFile}`], env],
      [[...flags, `--config=${gossipFile}`], env],
      [[...flags, `--config=${config}`], {}],
      [flags, { BEACON_REGISTRY_ADMIN_TOKEN: `${REGISTRY_TOKEN} \u00e4` }],
      [["--registry-admin-token", `${REGISTRY_TOKEN} \u00e4`], {}],
    ] as const) {
      const other = programs.beacon(args, more);
      const code = await other.exited();
      expect([args.at(-1), code]).toEqual([
        args.at(-1),
        /^--(help|version)$/.test(args[0]!) ? 0 : 2,
      ]);
      said.push(other.output());
    }

    const all = said.join("\n");
    expect(all).toContain("switched off"); // it was written down
    const found = [REGISTRY_TOKEN, ADMIN_TOKEN, GOSSIP_KEY, GOSSIP_KEY_BEFORE, tlsKey].flatMap(
      (secret) => partsOf(secret).filter((part) => all.includes(part)),
    );
    expect(found).toEqual([]);
  },
);
