/**
 * What `bun run package` makes, for this machine: the same bytes each time, sound by the judgement
 * of those who read them, and at work where it is put. By default the Debian package goes into a
 * copy of this host; PACKAGE_CLEAN_ROOT=1 has debootstrap make the smallest Debian for it (a
 * minute, once; kept in /var/tmp).
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GLIBC_MIN } from "../../deploy/package/deb.ts";
import { IMAGE_NAME } from "../../deploy/package/image.ts";
import { MACHINES, releaseTimeS, VERSION } from "../../deploy/package/release.ts";
import { commands } from "../../src/config/commands.ts";
import { settings } from "../../src/settings.ts";
import { Clients } from "../e2e/support/client.ts";
import { CLEAN_ENV, installed, Programs, ROOT } from "../e2e/support/program.ts";
import { TEST_TIMEOUT_MS } from "../e2e/support/wait.ts";
import { obstacleToRoots, PATH, Root } from "./root.ts";

/** The first use of a target's runtime fetches it; a debootstrap takes a minute. */
const PATIENCE_MS = 2 * TEST_TIMEOUT_MS;
const TARGET = process.arch === "arm64" ? "arm64" : "x64";
const ARCHITECTURE = MACHINES[TARGET].debian!;
const DEB = `pilot-beacon_${VERSION}_${ARCHITECTURE}.deb`;
const STEM = `pilot-beacon-${VERSION}-linux-${TARGET}`;

/** What no package is made of. */
const SOURCES_NOT = ["node_modules", "dist", ".git", ".ci", "bench", "test", "coverage"];

const folder = mkdtempSync(join(tmpdir(), "package-"));
const out = join(folder, "out");
const unpacked = join(folder, "tarball");
const programs = new Programs();
let port = 0;
const clients = new Clients(() => ({ port }));
afterAll(async () => {
  await programs.kill();
  rmSync(folder, { recursive: true });
});

const text = (...path: string[]) => readFileSync(join(...path), "utf8");
const without = (command: string) => (installed(command) ? "" : ` (needs ${command})`);

function run(...command: string[]): { code: number; stdout: string; stderr: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { cwd: folder, stderr: "pipe" });
  return { code: exitCode, stdout: stdout.toString(), stderr: stderr.toString() };
}

/**
 * A copy of what packages are made of; a checkout may have its packages behind a link, which the
 * bundler would notice.
 */
function copySources(to: string): string {
  mkdirSync(to, { recursive: true });
  const names = readdirSync(ROOT).filter((name) => !SOURCES_NOT.includes(name));
  const lock = JSON.parse(text(ROOT, "package-lock.json")) as {
    packages: Record<string, { dev?: true; optional?: true }>;
  };
  const packages = Object.entries(lock.packages).flatMap(([path, { dev, optional }]) =>
    path === "" || path === "node_modules/bun" || dev || optional ? [] : [path],
  );
  for (const path of [...names, ...packages])
    cpSync(join(ROOT, path), join(to, path), { recursive: true });
  return to;
}

/** @returns what it complained of, if it failed */
function make(
  sources: string,
  to: string,
  extra: readonly string[] = [],
  env: Record<string, string> = {},
): string {
  const command = [process.execPath, "deploy/package/main.ts", TARGET, "--out", to, ...extra];
  const time = { SOURCE_DATE_EPOCH: String(releaseTimeS(process.env)) };
  const { success, stderr } = Bun.spawnSync(command, {
    cwd: sources,
    env: { ...CLEAN_ENV, ...time, ...env },
    stderr: "pipe",
  });
  return success ? "" : stderr.toString();
}

/** Whether apt gets lists of packages from a mirror, asked without the code that is tested here. */
function hasMirror(): boolean {
  if (!installed("apt-get")) return false;
  const at = join(folder, "apt");
  const lists = join(at, "state/lists");
  for (const path of ["state/lists/partial", "cache/archives/partial"])
    mkdirSync(join(at, path), { recursive: true });
  const options = [`Dir::State=${at}/state`, `Dir::Cache=${at}/cache`, "APT::Sandbox::User="];
  run("apt-get", "-qq", ...options.map((option) => `-o${option}`), "update");
  // Its exit code is 0 even where no mirror answers.
  return readdirSync(lists).some((name) => name.includes("_Packages"));
}

/**
 * Why there is no image, or undefined: it takes apt and a mirror. Where both are there, it must be
 * made; all else in any case.
 */
function obstacleToImage(): string | undefined {
  const sources = copySources(join(folder, "sources"));
  const complaint = make(sources, out);
  if (complaint === "") return undefined;
  if (hasMirror()) throw new Error(complaint);
  const rest = make(sources, out, ["--no-image"]);
  if (rest !== "") throw new Error(rest);
  return "needs apt and a mirror of Debian's packages";
}
const whyNoImage = obstacleToImage();

beforeAll(() => {
  mkdirSync(unpacked);
  expect(run("tar", "-xzf", join(out, `${STEM}.tar.gz`), "-C", unpacked).stderr).toBe("");
});

/** The beacon, run so, serves and answers a node. */
async function expectServes(command: readonly string[]): Promise<void> {
  const flags = [
    "--addr=127.0.0.1:0",
    "--http=off",
    "--workers=2",
    "--max-nodes=1000",
    "--log-format=json",
  ];
  const beacon = programs.spawn([...command, ...flags], { env: { PATH } });
  port = (await beacon.listening()).port;
  const client = await clients.open();
  expect(await client.discover(7)).toEqual({ type: "discoverReply", ...client.address });
  beacon.signal("SIGTERM");
  expect(await beacon.exited()).toBe(0);
}
afterEach(() => clients.close());

test("the same sources make the same bytes, wherever and whenever", () => {
  const [again, temporary] = [join(folder, "again"), join(folder, "temporary")];
  mkdirSync(temporary);
  const sources = copySources(join(folder, "somewhere/else"));
  expect(make(sources, again, ["--no-image"], { TMPDIR: temporary, TZ: "Asia/Tokyo" })).toBe("");
  const names = readdirSync(again).filter((name) => name !== "SHA256SUMS");
  expect(names.sort()).toEqual([`${STEM}.cdx.json`, `${STEM}.tar.gz`, DEB].sort());
  for (const name of names)
    expect([name, run("cmp", join(out, name), join(again, name)).code]).toEqual([name, 0]);
});

test("SHA256SUMS is right, and of all", () => {
  const { stdout } = Bun.spawnSync(["sha256sum", "--check", "SHA256SUMS"], { cwd: out });
  const others = readdirSync(out).filter((name) => name !== "SHA256SUMS");
  expect(stdout.toString().trim().split("\n").sort()).toEqual(
    others.map((name) => `${name}: OK`).sort(),
  );
});

describe("the tarball", () => {
  const inside = join(unpacked, `pilot-beacon-${VERSION}`);

  test("has all that is needed, and a binary that runs", async () => {
    const names = [
      "CHANGELOG.md",
      "LICENSE",
      "LICENSES-OF-OTHERS",
      "README.md",
      "beacon",
      "beacon.1",
      "completions",
    ];
    expect(readdirSync(inside).sort()).toEqual([...names, "pilot-beacon.service"].sort());
    expect(run(join(inside, "beacon"), "--version").stdout).toBe(`pilot-beacon ${VERSION}\n`);
    await expectServes([join(inside, "beacon")]);
  });

  test.skipIf(!installed("man"))(
    `its manual page is sound and knows every option and command${without("man")}`,
    () => {
      const { stdout, stderr } = run(
        "man",
        "--warnings",
        "--encoding=ASCII",
        "-l",
        join(inside, "beacon.1"),
      );
      expect(stderr).toBe("");
      const words = new Set(stdout.split(/\s+/));
      expect(settings.map(({ flag }) => `--${flag}`).filter((flag) => !words.has(flag))).toEqual(
        [],
      );
      expect(
        Object.keys(commands).filter(
          (name) => !stdout.includes(`beacon ${name}`) && name !== "help",
        ),
      ).toEqual([]);
    },
  );

  test.skipIf(!installed("readelf"))(
    `the binary needs of glibc what is said of it${without("readelf")}`,
    () => {
      const symbols = run("readelf", "--wide", "--version-info", join(inside, "beacon")).stdout;
      const versions = [...symbols.matchAll(/Name: GLIBC_([\d.]+)/g)].map(
        ([, version]) => version!,
      );
      const byNumber = (a: string, b: string) => a.localeCompare(b, "en", { numeric: true });
      expect(versions.sort(byNumber).at(-1)).toBe(GLIBC_MIN);
    },
  );
});

describe("the bill of materials", () => {
  interface Part {
    readonly name: string;
    readonly version: string;
    readonly purl: string;
    readonly hashes: readonly { readonly alg: string; readonly content: string }[];
    readonly licenses: readonly object[];
  }
  const read = () =>
    JSON.parse(text(out, `${STEM}.cdx.json`)) as { components: Part[]; [key: string]: unknown };

  test("names the runtime and the packages in the binary, as they are locked", () => {
    const { components, ...document } = read();
    expect(document).toMatchObject({ bomFormat: "CycloneDX", specVersion: "1.6", version: 1 });
    const { packages } = JSON.parse(text(ROOT, "package-lock.json")) as {
      packages: Record<string, { version: string; integrity: string; dev?: boolean }>;
    };
    expect(components[0]!.name).toBe(MACHINES[TARGET].runtime);
    const names = components.map(({ name }) => name);
    expect(names).toEqual(
      expect.arrayContaining(["commander", "pino", "prom-client", "valibot", "ipaddr.js"]),
    );
    for (const { name, version, purl, hashes, licenses } of components) {
      // A package may be there in two versions, one in the folder of the package that wants it.
      const [, locked] = Object.entries(packages).find(
        ([path, each]) => path.endsWith(`node_modules/${name}`) && each.version === version,
      )!;
      expect([name, locked.dev]).toEqual([name, undefined]);
      expect(purl).toBe(`pkg:npm/${name.replace("@", "%40")}@${version}`);
      expect(hashes[0]!.alg).toBe("SHA-512");
      const base64 = Buffer.from(hashes[0]!.content, "hex").toString("base64");
      expect(locked.integrity).toBe(`sha512-${base64}`);
      expect(licenses).toHaveLength(1);
    }
  });

  test("names each once, and says what rests on what", () => {
    const { components, dependencies } = read() as unknown as {
      components: readonly { "bom-ref": string }[];
      dependencies: readonly { dependsOn: readonly string[] }[];
    };
    const references = components.map((each) => each["bom-ref"]);
    expect(new Set(references).size).toBe(references.length);
    expect(dependencies[0]!.dependsOn).toEqual(references);
  });
});

describe("the Debian package", () => {
  test.skipIf(!installed("dpkg-deb"))(
    `holds files of root's at their places${without("dpkg-deb")}`,
    () => {
      const { code, stdout, stderr } = run("dpkg-deb", "--contents", join(out, DEB));
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      const lines = stdout
        .trim()
        .split("\n")
        .map((line) => line.split(/\s+/));
      expect(new Set(lines.map(([, owner]) => owner))).toEqual(new Set(["root/root"]));
      const files = Object.fromEntries(lines.map((words) => [words.at(-1)!, words[0]!]));
      expect(files).toMatchObject({
        "./usr/bin/beacon": "-rwxr-xr-x",
        "./usr/lib/systemd/system/pilot-beacon.service": "-rw-r--r--",
        "./usr/lib/sysusers.d/pilot-beacon.conf": "-rw-r--r--",
        "./etc/pilot-beacon/config.json": "-rw-r--r--",
        "./usr/share/man/man1/beacon.1.gz": "-rw-r--r--",
        "./usr/share/doc/pilot-beacon/copyright": "-rw-r--r--",
        "./usr/share/bash-completion/completions/beacon": "-rw-r--r--",
        "./usr/share/zsh/vendor-completions/_beacon": "-rw-r--r--",
        "./usr/share/fish/vendor_completions.d/beacon.fish": "-rw-r--r--",
      });
    },
  );

  test.skipIf(!installed("lintian"))(
    `lintian has nothing to say${without("lintian")}`,
    () => {
      const { stdout, stderr } = run("lintian", "--allow-root", join(out, DEB));
      expect(stdout + stderr).toBe("");
    },
    PATIENCE_MS,
  );
});

const CLEAN_ROOT = "/var/tmp/beacon-clean-root";
const wantsCleanRoot = process.env["PACKAGE_CLEAN_ROOT"] === "1";

function obstacleToInstalling(): string | undefined {
  if (wantsCleanRoot && !existsSync(CLEAN_ROOT) && !installed("debootstrap"))
    return "needs debootstrap";
  if (!wantsCleanRoot && !installed("deb-systemd-helper")) return "needs a host that is a Debian";
  return obstacleToRoots();
}
const whyNotInstalled = obstacleToInstalling();

/** What the installed beacon finds before it. @returns the folder that the root begins as */
function debian(): string {
  if (!wantsCleanRoot) return "/";
  if (!existsSync(CLEAN_ROOT)) {
    const half = `${CLEAN_ROOT}.half`;
    rmSync(half, { recursive: true, force: true });
    const { code, stderr } = run("debootstrap", "--variant=minbase", "stable", half);
    if (code !== 0) throw new Error(`debootstrap failed: ${stderr}`);
    renameSync(half, CLEAN_ROOT);
  }
  return CLEAN_ROOT;
}

/**
 * Programs in the place of systemd's, which the scripts of the package call: they write down how,
 * and do as /run/will says.
 */
const STAND_INS = {
  systemctl: `
    echo "systemctl $*" >>/run/calls
    case "$*" in
      *--kill-whom*) exit 1 ;; # systemd 247 of Debian 11 and 249 of Ubuntu 22.04 do not know it
      *is-active*) test -e /run/active ;;
      *show*) cat /run/pid ;;
      *kill*) if [ -e /run/hands-over ]; then echo 43 >/run/pid; fi ;;
    esac`,
  "deb-systemd-invoke": 'echo "invoke $*" >>/run/calls',
  // The other process is in another root: what would run beside it runs here, as the unit's user
  // would.
  nsenter: `
    while [ "$1" != -- ]; do shift; done
    shift
    exec setpriv --reuid=pilot-beacon --regid=pilot-beacon --clear-groups "$@"`,
  sleep: "exit 0",
};

describe.skipIf(whyNotInstalled !== undefined)(
  `installed${whyNotInstalled === undefined ? "" : ` (${whyNotInstalled})`}`,
  () => {
    const WANTS = "/etc/systemd/system/multi-user.target.wants/pilot-beacon.service";
    let root: Root;

    beforeAll(async () => {
      mkdirSync(join(out, "stand-ins"));
      for (const [name, script] of Object.entries(STAND_INS))
        writeFileSync(join(out, "stand-ins", name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
      root = await Root.mount(programs, debian(), out, folder);
      // Triggers are the host's own, such as man-db's, and take longer than all the rest.
      root.sh(`dpkg --no-triggers --force-unsafe-io --install /mnt/${DEB}`);
    }, PATIENCE_MS);

    test("it runs, serves and answers", async () => {
      expect(root.sh("beacon --version")).toBe(`pilot-beacon ${VERSION}`);
      await expectServes(
        root.command(["beacon", "--config", "/etc/pilot-beacon/config.json"], 65534),
      );
    });

    test("its files are whole, its configuration is the operator's, and it starts with the host", () => {
      expect(root.sh("dpkg --verify pilot-beacon")).toBe("");
      expect(root.sh("dpkg --status pilot-beacon")).toMatch(
        /^Conffiles:\n \/etc\/pilot-beacon\/config\.json [0-9a-f]{32}$/m,
      );
      const unit = root.sh("cat /usr/lib/systemd/system/pilot-beacon.service");
      expect(unit).toContain("ExecStart=/usr/bin/beacon ");
      expect(unit).not.toContain("/usr/local");
      expect(root.sh(`readlink ${WANTS}`)).toEndWith("/systemd/system/pilot-beacon.service");
    });

    /** What the package's script calls after an upgrade. @param state files in /run */
    function upgrade(...state: string[]): string[] {
      root.sh(
        `rm -rf /run/*; mkdir -p /run/systemd/system; echo ${process.pid} >/run/pid; for file; do touch "/run/$file"; done`,
        ...state,
      );
      // as the unit has systemd do
      root.sh("install --directory --owner=pilot-beacon /var/lib/pilot-beacon");
      root.sh("PATH=/mnt/stand-ins:$PATH /var/lib/dpkg/info/pilot-beacon.postinst configure 0.0.9");
      const calls = root.sh("cat /run/calls").split("\n");
      return calls.filter((call) => / (--signal\S+|start|stop|restart) |^invoke/.test(call));
    }
    const ASKED = "systemctl kill --signal=SIGUSR2 --kill-who=main pilot-beacon.service";

    test("an upgrade has the running beacon hand over", () => {
      expect(upgrade("active", "hands-over")).toEqual([ASKED]);
    });

    test("one that does not is restarted, and one that was stopped stays so", () => {
      expect(upgrade("active")).toEqual([ASKED, "invoke restart pilot-beacon.service"]);
      expect(upgrade()).toEqual([]);
    });

    test("nor is one restarted whose configuration the new version refuses", () => {
      const path = "/etc/pilot-beacon/config.json";
      root.sh(`cp ${path} /tmp/kept; echo '{"workers": 0}' >${path}`);
      expect(upgrade("active")).toEqual([ASKED]);
      root.sh(`cp /tmp/kept ${path}`);
    });

    test("nor is one restarted whose user may not read a file that root may", () => {
      const path = "/etc/pilot-beacon/config.json";
      const key = "/etc/pilot-beacon/gossip.key";
      root.sh(`cp ${path} /tmp/kept; echo '{"gossip-key-file": "${key}"}' >${path}`);
      root.sh(`printf %040d 7 >${key}; chmod 600 ${key}; beacon check-config --config ${path}`);
      expect(upgrade("active")).toEqual([ASKED]);
      root.sh(`chown pilot-beacon ${key}`);
      expect(upgrade("active")).toEqual([ASKED, "invoke restart pilot-beacon.service"]);
      root.sh(`cp /tmp/kept ${path}; rm ${key}`);
    });

    test("an upgrade stops nothing before, a removal does", () => {
      const prerm = (what: string) =>
        root.sh(
          `rm -f /run/calls; touch /run/calls; PATH=/mnt/stand-ins:$PATH /var/lib/dpkg/info/pilot-beacon.prerm ${what}; cat /run/calls`,
        );
      root.sh("mkdir -p /run/systemd/system");
      expect(prerm("upgrade 9.9.9")).toBe("");
      expect(prerm("remove")).toBe("invoke stop pilot-beacon.service");
    });

    test("after a purge nothing is left", () => {
      root.sh("rm -rf /run/systemd");
      const files = root.sh("dpkg --listfiles pilot-beacon").split("\n");
      root.sh(
        "rm -r /var/lib/pilot-beacon; mkdir -p /var/lib/private/pilot-beacon && ln -s private/pilot-beacon /var/lib/pilot-beacon",
      );
      expect(root.run("dpkg", "--no-triggers", "--purge", "pilot-beacon")).toMatchObject({
        code: 0,
      });
      const own = files.filter((path) => /beacon/.test(path));
      const gone = [...own, "/var/lib/pilot-beacon", "/var/lib/private/pilot-beacon", WANTS];
      const left = root.sh(
        'for path; do if [ -e "$path" ] || [ -L "$path" ]; then echo "$path"; fi; done',
        ...gone,
      );
      expect(left).toBe("");
      expect(own.length).toBeGreaterThan(8);
      expect(root.sh("find /etc /var/lib/systemd -name '*pilot-beacon*'")).toBe("");
    });
  },
);

const whyImageNotTried = whyNoImage ?? obstacleToRoots();

describe.skipIf(whyImageNotTried !== undefined)(
  `the image${whyImageNotTried === undefined ? "" : ` (${whyImageNotTried})`}`,
  () => {
    interface Descriptor {
      readonly mediaType: string;
      readonly digest: string;
      readonly size: number;
      readonly platform?: { readonly architecture: string; readonly os: string };
      readonly annotations?: Readonly<Record<string, string>>;
    }
    const layout = join(folder, "layout");
    const rootfs = join(folder, "rootfs");
    const seen = new Set<string>();
    /** As containers run it. */
    const USER = 65532;

    /** The path of a blob that is what its descriptor says. */
    function blob({ digest, size }: Descriptor): string {
      const path = join(layout, "blobs", digest.replace(":", "/"));
      seen.add(path);
      expect(statSync(path).size).toBe(size);
      expect(`sha256:${run("sha256sum", path).stdout.split(" ")[0]}`).toBe(digest);
      return path;
    }
    const json = <T>(descriptor: Descriptor): T => JSON.parse(text(blob(descriptor))) as T;

    beforeAll(() => {
      mkdirSync(layout);
      mkdirSync(rootfs);
      expect(run("tar", "-xf", join(out, IMAGE_NAME), "-C", layout).stderr).toBe("");
    });

    test("is an OCI layout whose every blob is what its digest says", () => {
      expect(JSON.parse(text(layout, "oci-layout"))).toEqual({ imageLayoutVersion: "1.0.0" });
      const { manifests } = JSON.parse(text(layout, "index.json")) as { manifests: Descriptor[] };
      expect(manifests.map(({ annotations }) => annotations)).toEqual([
        { "org.opencontainers.image.ref.name": `pilot-beacon:${VERSION}` },
      ]);
      const index = json<{ manifests: Descriptor[] }>(manifests[0]!);
      expect(index.manifests.map(({ platform }) => platform)).toEqual([
        { architecture: ARCHITECTURE, os: "linux" },
      ]);
      const manifest = json<{ config: Descriptor; layers: Descriptor[] }>(index.manifests[0]!);
      const config = json<{ config: object; rootfs: { diff_ids: string[] }; architecture: string }>(
        manifest.config,
      );
      expect(config).toMatchObject({
        architecture: ARCHITECTURE,
        config: {
          User: "65532:65532",
          Entrypoint: ["/usr/bin/beacon", "supervise"],
          ExposedPorts: { "9001/udp": {}, "9002/tcp": {} },
        },
      });
      const plain = manifest.layers.map((layer) => {
        const path = blob(layer);
        expect(run("tar", "-xzf", path, "-C", rootfs).stderr).toBe("");
        return `sha256:${run("sh", "-c", `gzip -dc ${path} | sha256sum`).stdout.split(" ")[0]}`;
      });
      expect(config.rootfs.diff_ids).toEqual(plain);
      expect(readdirSync(join(layout, "blobs/sha256"))).toHaveLength(seen.size);
    });

    test("holds all that the beacon needs: it serves with nothing around it but what every container has", async () => {
      const root = await Root.mount(programs, rootfs, out, folder);
      const { uid, mode } = statSync(root.outside("/var/lib/pilot-beacon"));
      expect({ uid, mode: mode & 0o7777 }).toEqual({ uid: USER, mode: 0o700 });
      const state = "/var/lib/pilot-beacon/nodes";
      await expectServes(
        root.command(["/usr/bin/beacon", "supervise", `--state-file=${state}`], USER),
      );
      expect(existsSync(root.outside(state))).toBe(true);
    });

    test.skipIf(!installed("skopeo"))(`is an image to others, too${without("skopeo")}`, () => {
      const { stdout, stderr } = run("skopeo", "inspect", `oci-archive:${join(out, IMAGE_NAME)}`);
      expect(stderr).toBe("");
      expect(JSON.parse(stdout)).toMatchObject({ Architecture: ARCHITECTURE, Os: "linux" });
    });
  },
);
