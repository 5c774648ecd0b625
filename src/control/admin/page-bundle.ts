/**
 * The page's files, bundled. A macro: it runs while the module that imports it is read, under `bun
 * run`, or compiled, in `build.ts`, so that a binary carries what it returns. Bun.build cannot run
 * inside a macro; Bun's command can.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** @throws Error with what the bundler says */
export function bundledPage(): Record<"html" | "script" | "style" | "icon", string> {
  const folder = join(import.meta.dir, "../../page");
  const bundled = (name: string): string => {
    const command = [process.execPath, "build", "--minify", "--target=browser", join(folder, name)];
    // The bundler needs a working directory that exists; this process's may have been removed.
    const { success, stdout, stderr } = Bun.spawnSync(command, {
      cwd: folder,
      stdout: "pipe",
      stderr: "pipe",
    });
    if (!success) throw new Error(`the page's ${name} cannot be bundled: ${stderr}`);
    return stdout.toString();
  };
  const text = (name: string): string => readFileSync(join(folder, name), "utf8");
  return {
    html: text("index.html"),
    script: bundled("app.ts"),
    style: bundled("style.css"),
    icon: text("icon.svg"),
  };
}
