/**
 * Memory for a route table, and for nothing else: all that beacons share takes longer to make than
 * a whole simulated schedule.
 */

import type { RouteMemory } from "../../src/shared/routes.ts";
import { privateRouteMemory } from "../../src/shared/routes-owner.ts";

export const SECRET = 0x5ec2_e701;

/** @param routesMax the default has far more slots than the nodes that are simulated */
export const routeMemory = (routesMax = 480): RouteMemory => privateRouteMemory(routesMax, SECRET);
