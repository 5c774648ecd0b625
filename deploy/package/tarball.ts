/**
 * The archive for a machine without packages: everything in one folder, to be put where it is
 * wanted.
 */
import type { Contents } from "./contents.ts";
import { NAME, VERSION } from "./release.ts";
import { type Entry, gzip, tar, textEntry } from "./tar.ts";

/** Names that shells want of a file with completions. */
const COMPLETION_NAMES = { bash: "beacon", zsh: "_beacon", fish: "beacon.fish" } as const;

export const tarballName = ({ target }: Contents): string =>
  `${NAME}-${VERSION}-linux-${target}.tar.gz`;

export function tarball(contents: Contents): Uint8Array {
  const entries: Entry[] = [
    { path: "beacon", data: contents.binary, mode: 0o755 },
    textEntry("pilot-beacon.service", contents.unit),
    textEntry("beacon.1", contents.manPage),
    textEntry("LICENSE", contents.license),
    textEntry("LICENSES-OF-OTHERS", contents.notices),
    textEntry("README.md", contents.readme),
    textEntry("CHANGELOG.md", contents.changelog),
    ...[...contents.completions].map(([shell, text]) =>
      textEntry(`completions/${shell}/${COMPLETION_NAMES[shell]}`, text),
    ),
  ];
  return gzip(tar(entries, `${NAME}-${VERSION}/`, contents.timeS));
}
