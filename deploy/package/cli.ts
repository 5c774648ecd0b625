/** The commands beside the server, and the completions of shells, as far as the sources have them. */
import { existsSync } from "node:fs";
import type { Command } from "commander";
import { ROOT } from "./release.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** Where each shell looks for what a package brings. */
export const COMPLETION_PATHS: Readonly<Record<Shell, string>> = {
  bash: "usr/share/bash-completion/completions/beacon",
  zsh: "usr/share/zsh/vendor-completions/_beacon",
  fish: "usr/share/fish/vendor_completions.d/beacon.fish",
};

/** PENDING: both files are looked for as long as they need not be there; then these become plain imports. */
async function optional<T>(path: string): Promise<Partial<T>> {
  const file = `${ROOT}/src/cli/${path}`;
  return existsSync(file) ? ((await import(file)) as T) : {};
}

export async function commands(): Promise<Command | undefined> {
  return (await optional<{ program: Command }>("program.ts")).program;
}

/** The text of each shell's file. */
export async function completions(): Promise<ReadonlyMap<Shell, string>> {
  const { completion } = await optional<{ completion(shell: Shell): string }>("completion.ts");
  return new Map(completion ? SHELLS.map((shell) => [shell, completion(shell)]) : []);
}
