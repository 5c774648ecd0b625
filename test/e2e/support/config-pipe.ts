/** A configuration file that is a named pipe: a beacon that reads it waits for the test. */
import { closeSync, constants, openSync, writeSync } from "node:fs";
import { until } from "./wait.ts";

export class ConfigPipe {
  private constructor(readonly path: string) {}

  static make(path: string): ConfigPipe {
    if (!Bun.spawnSync(["mkfifo", path]).success) throw new Error(`no named pipe at ${path}`);
    return new ConfigPipe(path);
  }

  /** Waits until a beacon reads its configuration, and lets it have an empty one. @param first done while it waits */
  async feed(first: () => void = () => {}): Promise<void> {
    const fd = await until("a reader of the configuration", () => {
      try {
        return openSync(this.path, constants.O_WRONLY | constants.O_NONBLOCK);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENXIO") return undefined;
        throw error;
      }
    });
    try {
      first();
      writeSync(fd, "{}");
    } finally {
      closeSync(fd);
    }
  }
}
