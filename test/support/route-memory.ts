/** Memory for a route table, and for nothing else: all that beacons share takes longer to make than a whole simulated schedule. */
import { HASH_SECRET, ROUTE_WORDS, SharedMemory } from "../../src/shared/memory.ts";

export const SECRET = 0x5ec2_e701;
/** Words that lie before the routes, the secret among them. */
const LINE_WORDS = 16;
const shapes = new Map<number, SharedMemory>();

/** @param routesMax the default has far more slots than the nodes that are simulated */
export function routeMemory(routesMax = 480): SharedMemory {
  const whole = shapes.get(routesMax) ?? new SharedMemory({ workers: 1, nodesMax: 1, routesMax });
  shapes.set(routesMax, whole);
  const words = new Int32Array(new SharedArrayBuffer(4 * (2 * LINE_WORDS + whole.routeSlots * ROUTE_WORDS)));
  words[HASH_SECRET] = SECRET;
  return Object.create(whole, {
    routesAt: { value: LINE_WORDS },
    routeSlotsAt: { value: 2 * LINE_WORDS },
    words: { value: words },
  });
}
