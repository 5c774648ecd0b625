/** The route directory: the routes of a whole fleet, in Redis or Valkey. */
import { shown } from "../../config/units.ts";
import { bridge } from "../bridge/feature.ts";
import type { AnyFeature, Host, Reading } from "../feature.ts";
import { mesh } from "../mesh/feature.ts";
import { sockets } from "../sockets/feature.ts";
import { DIRECTORY } from "./metrics.ts";
import { checkDirectory, type DirectoryConfig, directoryOptions } from "./options.ts";
import { DirectorySetup } from "./setup.ts";
import { type Stats, stats } from "./stats.ts";
import { storeOptions } from "./store-options.ts";

/** Only validates: each connection reads the files again, as a password may change. */
function read(config: DirectoryConfig, reading: Reading<void>): void {
  if (config.directory === "off") return;
  if (storeOptions(config).authFileExposed)
    reading.warn(
      `${shown(config.directoryAuthFile)}: the directory's password file can be read by others than its owner: chmod 600`,
    );
}

export const directory = {
  name: "directory",
  options: directoryOptions,
  check: checkDirectory,
  read,
  stats,
  metrics: [DIRECTORY],
  create(host: Host<DirectoryConfig, void>) {
    const { config, memory, nodes, routes, log } = host;
    const { mesh: peers, useClock } = host.use(mesh);
    const setup =
      config.directory === "off" ? undefined : new DirectorySetup(memory, nodes, routes);
    if (setup) useClock(() => setup.clock.nowMs());
    const made = setup?.open(
      config,
      host.use(sockets).address,
      peers,
      (nodeId) => host.use(bridge).disconnect(nodeId),
      log,
      host.guard,
    );
    return {
      /** Undefined without a directory. */
      directory: made,
      start() {
        made?.adopt(peers.names.fleet);
        made?.start();
      },
      // Before the bridge and the mesh, which are earlier in the list: nodes that the bridge
      // disconnects must not be published as gone, since a successor may have them by then.
      stop: (isReplaced: boolean) => made?.stop(isReplaced),
      stats: (): Stats => ({ directory: made?.stats() ?? null }),
      warnings: () => (made?.remark === undefined ? [] : [made.remark]),
    };
  },
} satisfies AnyFeature;
