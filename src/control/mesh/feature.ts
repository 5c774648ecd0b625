/** The mesh: the peer beacons and their nodes. */
import { shown } from "../../config/units.ts";
import { STRANGERS_BELIEVED } from "../../shared/memory.ts";
import type { AnyFeature, Host, Reading } from "../feature.ts";
import { total } from "../kit/metrics.ts";
import { ThrottledLog } from "../kit/throttled-log.ts";
import { limits } from "../limits/feature.ts";
import { nodes } from "../nodes/feature.ts";
import { FullTable } from "../nodes/full-table.ts";
import { sockets } from "../sockets/feature.ts";
import { workers } from "../workers/feature.ts";
import { acceptsUnlisted } from "./context.ts";
import { type GossipKeys, readGossipKeys } from "./gossip-keys.ts";
import { MeshSections } from "./hand-over.ts";
import { Mesh } from "./mesh.ts";
import { MESH, PEERS } from "./metrics.ts";
import { checkMesh, type MeshConfig, type MeshReads, meshOptions } from "./options.ts";
import { readAdminToken } from "./registry-token.ts";
import { type Stats, stats } from "./stats.ts";

interface Files {
  readonly gossipKeys: GossipKeys;
  /** Of the registry; "" is none. */
  readonly adminToken: string;
}

function read(config: MeshConfig, reading: Reading<Files>): Files {
  const { gossipKeyFile } = config;
  const gossipKeys = readGossipKeys(gossipKeyFile);
  if (gossipKeys.exposed)
    reading.warn(
      `${shown(gossipKeyFile)}: the gossip key file ` +
        "can be read by others than its owner: chmod 600",
    );
  return { gossipKeys, adminToken: readAdminToken(config) };
}

export const mesh = {
  name: "mesh",
  options: meshOptions,
  check: checkMesh,
  read,
  stats,
  metrics: [MESH, PEERS],
  summary: ({ mesh }: Stats) => ({ gossipRefused: total(mesh.gossipRefused) }),
  create(host: Host<MeshReads, Files>) {
    const { memory, routes, config, log } = host;
    const { all, address, sources } = host.use(sockets);
    let nowMs: (() => number) | undefined;
    const made = new Mesh(
      {
        ...{ memory, nodes: host.nodes, socket: all[0]!, address, routes, sources },
        guard: host.guard,
        limits: host.use(limits),
        reaches: (endpoint) => host.use(sockets).reaches(endpoint),
        ...(config.directory !== "off" && { nowMs: () => nowMs!() }),
      },
      { ...config, registryAdminToken: host.files.adminToken },
      host.files.gossipKeys,
      log,
    );
    host.use(workers).mail.add(made.gossipIn);
    host.use(nodes).hidden = () => made.ownNodes;
    const sections = new MeshSections(made, routes, (endpoint) =>
      host.use(sockets).translateLocal(endpoint),
    );
    const allow = (changed: MeshConfig) =>
      Atomics.store(
        memory.words,
        memory.rulesAt + STRANGERS_BELIEVED,
        Number(acceptsUnlisted(changed)),
      );
    allow(config);
    const full = new FullTable(
      {
        name: "route table",
        entries: "routes",
        option: `--max-routes (${config.maxRoutes})`,
        refused: () => made.announcements.refused + (made.announcements.others?.routesRefused ?? 0),
      },
      new ThrottledLog(log),
    );
    return {
      mesh: made,
      /** Sets the clock for the time of claims. */
      useClock(clock: () => number) {
        nowMs = clock;
      },
      handOver: sections,
      start: () => made.start(),
      hold: () => sections.begin(),
      tick() {
        made.tick();
        full.tick();
      },
      reconfigure(changed: MeshReads, { gossipKeys, adminToken }: Files) {
        allow(changed);
        made.reconfigure({ ...changed, registryAdminToken: adminToken }, gossipKeys);
      },
      /** The successor sends for this beacon from here on. */
      suspend() {
        made.isSilent = true;
      },
      resume() {
        made.isSilent = false;
      },
      stop: () => made.stop(),
      stats: (): Stats => ({ mesh: made.stats() }),
      warnings: () => [...(full.warning === undefined ? [] : [full.warning]), ...made.remarks],
    };
  },
} satisfies AnyFeature;
