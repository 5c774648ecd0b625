/**
 * Builds the Debian package without Debian's tools: an ar archive of the format's version,
 * control.tar.gz and data.tar.gz.
 *
 * nfpm 2.48.0 makes an equivalent package with 21 lines fewer here, but it needs Go 1.26.4 and the
 * Go module proxy wherever packages are made or tested (Debian 12 has Go 1.19). It takes three
 * times the CPU time, and its package is 3 % larger.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Shell } from "../../src/cli/program.ts";
import type { Contents } from "./contents.ts";
import { DESCRIPTION, MACHINES, NAME, VERSION } from "./release.ts";
import { type Entry, gzip, gzipText, tar, textEntry } from "./tar.ts";

/**
 * The newest symbols that Bun's runtime has of glibc (readelf --version-info); the test looks
 * again.
 */
export const GLIBC_MIN = "2.17";

/** .invalid: whoever publishes packages puts themselves in here. */
const MAINTAINER = "Pilot Protocol <pilot-beacon@pilot-protocol.invalid>";

/** Where each shell looks for what a package brings. */
const COMPLETION_PATHS: Readonly<Record<Shell, string>> = {
  bash: "usr/share/bash-completion/completions/beacon",
  zsh: "usr/share/zsh/vendor-completions/_beacon",
  fish: "usr/share/fish/vendor_completions.d/beacon.fish",
};

const DOC = `usr/share/doc/${NAME}`;

const ownFile = (name: string): string =>
  readFileSync(join(import.meta.dir, "debian", name), "utf8");

/**
 * A paragraph in lines of at most 79 characters, each behind a space, as descriptions are written.
 */
const folded = (text: string): string => text.replace(/(.{1,78})(?:\s+|$)/g, " $1\n").trimEnd();

/**
 * The unit where the binary is in /usr/bin.
 * @throws Error if it does not name the binary as it did
 */
function packagedUnit(unit: string): string {
  const installing = "The binary goes to /usr/local/bin/beacon, this file to /etc/systemd/system.";
  const start = "ExecStart=/usr/local/bin/beacon ";
  if (!unit.includes(installing) || !unit.includes(start))
    throw new Error(
      "deploy/pilot-beacon.service no longer says where the binary is as deb.ts expects: adapt deb.ts",
    );
  return unit.replace(` ${installing}`, "").replace(start, "ExecStart=/usr/bin/beacon ");
}

/** In Debian's form, which programs read; what changed is in CHANGELOG.md beside it. */
function debianChangelog(timeS: number): string {
  const date = new Date(timeS * 1000).toUTCString().replace("GMT", "+0000");
  return `${NAME} (${VERSION}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- ${MAINTAINER}  ${date}\n`;
}

/**
 * Others' licences are in a file of their own, for the Apache licence's text may not stand in this
 * one.
 */
function copyright({ license }: Contents): string {
  return `${DESCRIPTION}

Copyright: the authors of ${NAME}
Licence: AGPL-3.0-or-later, whose text follows.

The program contains work of others; LICENSES-OF-OTHERS.gz beside this file names it, with its licences. The text of the
Apache License 2.0 is also in /usr/share/common-licenses/Apache-2.0.

${license}`;
}

function files(contents: Contents): Entry[] {
  const gzipped = (path: string, text: string): Entry => ({
    path: `${path}.gz`,
    data: gzipText(text),
  });
  return [
    { path: "usr/bin/beacon", data: contents.binary, mode: 0o755 },
    textEntry("usr/lib/systemd/system/pilot-beacon.service", packagedUnit(contents.unit)),
    textEntry("usr/lib/sysusers.d/pilot-beacon.conf", ownFile("sysusers.conf")),
    textEntry("etc/pilot-beacon/config.json", "{}\n"),
    gzipped("usr/share/man/man1/beacon.1", contents.manPage),
    ...[...contents.completions].map(([shell, text]) => textEntry(COMPLETION_PATHS[shell], text)),
    textEntry(`${DOC}/copyright`, copyright(contents)),
    gzipped(`${DOC}/changelog`, debianChangelog(contents.timeS)),
    gzipped(`${DOC}/CHANGELOG.md`, contents.changelog),
    gzipped(`${DOC}/README.md`, contents.readme),
    gzipped(`${DOC}/LICENSES-OF-OTHERS`, contents.notices),
    textEntry(`usr/share/lintian/overrides/${NAME}`, ownFile("lintian-overrides")),
  ];
}

const isConfiguration = ({ path }: Entry): boolean => path.startsWith("etc/");

function control(all: readonly Entry[], architecture: string): Entry[] {
  const kib = all.reduce((sum, { data }) => sum + Math.ceil((data?.length ?? 0) / 1024), 0);
  const fields = {
    Package: NAME,
    Version: VERSION,
    Architecture: architecture,
    Maintainer: MAINTAINER,
    "Installed-Size": kib,
    Depends: `libc6 (>= ${GLIBC_MIN})`,
    // deb-systemd-helper, which the maintainer scripts call. Its package is essential, but old
    // versions lack it.
    "Pre-Depends": "init-system-helpers (>= 1.54~)",
    Section: "net",
    Priority: "optional",
    Description: `UDP rendezvous and relay server of Pilot Protocol\n${folded(DESCRIPTION)}`,
  };
  const sums = all
    .filter((entry) => !isConfiguration(entry))
    .map(
      ({ path, data }) => `${new Bun.CryptoHasher("md5").update(data!).digest("hex")}  ${path}\n`,
    );
  const script = (path: string): Entry => ({
    path,
    data: Buffer.from(ownFile(path)),
    mode: 0o755,
  });
  return [
    textEntry(
      "control",
      Object.entries(fields)
        .map(([name, value]) => `${name}: ${value}\n`)
        .join(""),
    ),
    textEntry(
      "conffiles",
      all
        .filter(isConfiguration)
        .map(({ path }) => `/${path}\n`)
        .join(""),
    ),
    textEntry("md5sums", sums.sort().join("")),
    ...["postinst", "prerm", "postrm"].map(script),
  ];
}

/** ar: a line, then members, each with a header of 60 characters and an even length. */
function ar(
  members: readonly (readonly [name: string, data: Uint8Array])[],
  timeS: number,
): Uint8Array {
  const parts: Uint8Array[] = [Buffer.from("!<arch>\n")];
  for (const [name, data] of members) {
    const fields = [
      name.padEnd(16),
      String(timeS).padEnd(12),
      "0".padEnd(6),
      "0".padEnd(6),
      "100644".padEnd(8),
    ];
    parts.push(Buffer.from(`${fields.join("")}${String(data.length).padEnd(10)}\`\n`), data);
    if (data.length % 2 === 1) parts.push(Buffer.from("\n"));
  }
  return Buffer.concat(parts);
}

/** Its file's name, or undefined for a target that Debian has none of. */
export function debName({ target }: Contents): string | undefined {
  const { debian } = MACHINES[target];
  return debian && `${NAME}_${VERSION}_${debian}.deb`;
}

/** @throws Error for a target that Debian has none of */
export function deb(contents: Contents): Uint8Array {
  const { debian } = MACHINES[contents.target];
  if (debian === undefined) throw new Error(`Debian has no machine such as ${contents.target}`);
  const all = files(contents);
  const packed = (entries: readonly Entry[]) => gzip(tar(entries, "./", contents.timeS));
  return ar(
    [
      ["debian-binary", Buffer.from("2.0\n")],
      ["control.tar.gz", packed(control(all, debian))],
      ["data.tar.gz", packed(all)],
    ],
    contents.timeS,
  );
}
