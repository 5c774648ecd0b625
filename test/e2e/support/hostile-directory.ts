/** A working directory in which others have put what Bun reads by itself: settings, and code that it would run. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export class HostileDirectory {
  /** @param path is made */
  constructor(readonly path: string) {
    mkdirSync(path);
    const write = (name: string, text: string) => writeFileSync(join(path, name), text);
    for (const name of [".env", ".env.local", ".env.production", ".env.development", ".env.test"])
      write(name, `BEACON_LOG_LEVEL=from-${name}\n`);
    write("evil.ts", `require("node:fs").writeFileSync(${JSON.stringify(this.#trace)}, "ran");\n`);
    write("bunfig.toml", 'preload = ["./evil.ts"]\n[run]\npreload = ["./evil.ts"]\n');
    const paths = Object.fromEntries(
      ["pino", "commander", "valibot", "*"].map((name) => [name, ["./evil.ts"]]),
    );
    write("tsconfig.json", JSON.stringify({ compilerOptions: { baseUrl: ".", paths } }));
    const imports = { "#pino": "./evil.ts", pino: "./evil.ts", commander: "./evil.ts" };
    write("package.json", JSON.stringify({ name: "evil", main: "evil.ts", imports, exports: "./evil.ts" }));
    for (const name of ["pino", "commander"]) {
      mkdirSync(join(path, "node_modules", name), { recursive: true });
      write(`node_modules/${name}/package.json`, JSON.stringify({ name, main: "../../evil.ts" }));
    }
  }

  get #trace(): string {
    return join(this.path, "trace");
  }

  /** Whether any code in the directory has run. */
  get hasRun(): boolean {
    return existsSync(this.#trace);
  }
}
