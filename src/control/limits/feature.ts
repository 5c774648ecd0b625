/** Limits by source, and the breakers that switch parts of the service off. */

import * as v from "valibot";
import type { AnyFeature, HandOverPhase, Host, SendSection } from "../feature.ts";
import { readJson, text } from "../hand-over/format.ts";
import type { StatsOf } from "../kit/schema.ts";
import { Breakers } from "./breakers.ts";
import { adoptCells, writeCells } from "./cells.ts";
import { Limits } from "./limits.ts";
import { type LimitsConfig, limitsOptions } from "./options.ts";

const states = v.record(text, v.picklist(["on", "off"]));
const stats = { breakers: states };

export const limits = {
  name: "limits",
  options: limitsOptions,
  stats,
  metrics: [
    {
      rows: ({ breakers }: StatsOf<typeof stats>) => [[{}, breakers]],
      gauges: [
        {
          name: "beacon_breaker_off",
          help: "1 for what an operator has switched off, 0 for what is on.",
          label: "breaker",
          values: (states) =>
            Object.fromEntries(
              Object.entries(states).map(([name, state]) => [name, Number(state === "off")]),
            ),
        },
      ],
    },
  ],
  create({ memory, nodes, config, log }: Host<LimitsConfig>) {
    const applied = new Limits(memory);
    applied.configure(config, nodes.size());
    const breakers = new Breakers(memory, log);
    return {
      isDenied: (endpoint: Int32Array) => applied.isDenied(endpoint),
      isNoHost: (endpoint: Int32Array) => applied.isNoHost(endpoint),
      breakers,
      tick: () => applied.tick(nodes.size()),
      reconfigure: (changed: LimitsConfig) => applied.configure(changed, nodes.size()),
      stats: () => ({ breakers: breakers.states }),
      handOver: {
        sections: {
          cells: { version: 1, read: (body: Uint8Array) => adoptCells(memory, body) },
          breakers: {
            version: 1,
            read: (body: Uint8Array) => breakers.adopt(readJson(states, body)),
          },
        },
        async write(phase: HandOverPhase, send: SendSection) {
          if (phase === "closing") await writeCells(memory, send);
          if (phase === "all" || phase === "stopped") await send("breakers", breakers.states);
        },
      },
    };
  },
} satisfies AnyFeature;
