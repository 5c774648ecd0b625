/** The archive for a machine without packages: everything in one folder, to be put where it is wanted. */
import type { Contents } from "./contents.ts";
import { NAME, VERSION } from "./release.ts";
import { type Entry, gzip, tar } from "./tar.ts";

/** Names that shells want of a file with completions. */
const COMPLETION_NAMES = { bash: "beacon", zsh: "_beacon", fish: "beacon.fish" } as const;

export const tarballName = ({ target }: Contents): string => `${NAME}-${VERSION}-linux-${target}.tar.gz`;

export function tarball(contents: Contents): Uint8Array {
  const file = (path: string, text: string): Entry => ({ path, data: Buffer.from(text) });
  const entries: Entry[] = [
    { path: "beacon", data: contents.binary, mode: 0o755 },
    file("pilot-beacon.service", contents.unit),
    file("beacon.1", contents.manPage),
    file("LICENSE", contents.license),
    file("LICENSES-OF-OTHERS", contents.notices),
    file("README.md", contents.readme),
    file("CHANGELOG.md", contents.changelog),
    ...[...contents.completions].map(([shell, text]) =>
      file(`completions/${shell}/${COMPLETION_NAMES[shell]}`, text),
    ),
  ];
  return gzip(tar(entries, `${NAME}-${VERSION}/`, contents.timeS));
}
