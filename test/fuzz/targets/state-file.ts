/** The state file, as disks, other programs and enemies may leave it. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { ENDPOINT_PORT_MASK, endpointOf } from "../../../ffi/endpoint.ts";
import { StateFile } from "../../../src/control/nodes/state-file.ts";
import {
  GRANTS_REQUIRED,
  HASH_SECRET,
  MAIN_THREAD_LOCK,
  SharedMemory,
} from "../../../src/shared/memory.ts";
import { NodeTableOwner } from "../../../src/shared/nodes-owner.ts";
import type { Choices } from "../choices.ts";
import { fuzzFolder } from "../folder.ts";
import { mutateBytes } from "../mutate.ts";
import { fail, type OpenTarget, type Seen, type Target } from "../target.ts";

const NODES_MAX = 8;
const TTL_S = 600;
const HEADER_BYTES = 32;
const CHECKSUM_AT = 28;

export const STATE_FILE: Target = {
  name: "state-file",
  about: "state files, damaged and made up",
  choiceBytes: 120,
  open: () => new StateFiles(),
};

class StateFiles implements OpenTarget {
  readonly #folder = fuzzFolder();
  readonly #path = join(this.#folder, "nodes");
  readonly #memory = new SharedMemory({ workers: 1, nodesMax: NODES_MAX, routesMax: 1 });
  #good: readonly Uint8Array<ArrayBuffer>[] | undefined;

  async check(choices: Choices, seen: Seen): Promise<void> {
    this.#good ??= await Promise.all([this.#saved(false), this.#saved(true)]);
    const bytes = mutateBytes(choices, choices.pick(this.#good), 4);
    if (choices.oneIn(2) && bytes.length >= HEADER_BYTES) {
      // By one who knows the format: with the right checksum.
      const view = new DataView(bytes.buffer);
      if (choices.oneIn(4)) view.setUint32(24, choices.number(), true);
      const sum = crc32(bytes.subarray(0, CHECKSUM_AT), crc32(bytes.subarray(HEADER_BYTES)));
      view.setUint32(CHECKSUM_AT, sum, true);
    }
    seen.note(() => Buffer.from(bytes).toString("hex"));
    writeFileSync(this.#path, bytes);
    const memory = this.#emptied();
    const nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
    const file = new StateFile(this.#path, memory, nodes, TTL_S, () => 1_700_000_100_000);
    const denied = endpointOf("10.0.0.3", 0)[4]!;
    const result = await file.load({
      nowS: 1000,
      accepts: (endpoint) => endpoint[4] !== denied,
      localNumber: () => 7,
    });
    seen.outcome(`${result.outcome}, ${result.restored} restored`);
    if (/[\p{C}\p{Zl}\p{Zp}]/u.test(result.message)) fail("a message that moves the cursor");
    if (result.outcome !== "restored" && nodes.size() !== 0)
      fail(`${result.outcome}, and ${nodes.size()} nodes`);
    if (result.outcome === "restored" && nodes.size() !== result.restored)
      fail(`${nodes.size()} nodes, not ${result.restored}`);
    if (nodes.size() > NODES_MAX) fail(`${nodes.size()} nodes`);
    for (const { nodeId, endpoint, seenS } of nodes.entries()) {
      if (nodeId === 0 || nodes.find(nodeId) < 0) fail(`node ${nodeId} is there and not found`);
      if ((endpoint[0]! & ENDPOINT_PORT_MASK) === 0 || endpoint[4] === denied)
        fail(`a node at ${endpoint.join()}`);
      if (seenS > 1000 || seenS <= 1000 - TTL_S) fail(`a node seen at ${seenS}`);
    }
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #saved(withKeys: boolean): Promise<Uint8Array<ArrayBuffer>> {
    const memory = new SharedMemory({ workers: 1, nodesMax: NODES_MAX, routesMax: 1 });
    memory.words[HASH_SECRET] = 1;
    memory.words[memory.rulesAt + GRANTS_REQUIRED] = Number(withKeys);
    const nodes = new NodeTableOwner(memory, MAIN_THREAD_LOCK);
    for (const [i, host] of [1, 2, 3, 4].entries())
      nodes.record(i + 1, endpointOf(`10.0.0.${host}`, 4000), 0, i & 1, 990 - i);
    const path = `${this.#path}-good-${withKeys}`;
    await new StateFile(path, memory, nodes, TTL_S, () => 1_700_000_000_000).saveLast(1000);
    return new Uint8Array(readFileSync(path));
  }

  /** Memory of this size costs more to make than a case. */
  #emptied(): SharedMemory {
    this.#memory.words.fill(0, 0, this.#memory.routesAt);
    this.#memory.words[HASH_SECRET] = 1;
    return this.#memory;
  }
}
