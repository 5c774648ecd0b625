/** `beacon top`: a beacon's numbers live, on a terminal or as lines. */
import type { Stats } from "../../features.ts";
import { type Rates, ratesBetween } from "../../view/rates.ts";
import type { Api } from "../api.ts";
import { type Console, EXIT_OK } from "../console.ts";
import { follow, type News } from "./follow.ts";
import { Screen } from "./screen.ts";
import { plainLine, pressed, render, type TopState } from "./view.ts";

export interface TopOptions {
  readonly json: boolean;
  /** Lines before it ends, of those that have no terminal; undefined for no end. */
  readonly count: number | undefined;
}

/** @throws ApiError when the beacon cannot be reached from the beginning */
export async function top(api: Api, { json, count }: TopOptions, out: Console): Promise<number> {
  if (out.isTerminal && !json && count === undefined && out.env["TERM"] !== "dumb")
    return onTerminal(api, out);
  let left = count ?? Number.POSITIVE_INFINITY;
  for await (const { news, rates } of withRates(api)) {
    if ("lost" in news) out.problem(`${news.lost}; trying again`);
    if (!("stats" in news) || rates === undefined) continue;
    const { nodes, uptimeS, healthy, notReady, warnings } = news.stats;
    if (json) out.json({ uptimeS, healthy, notReady, warnings, nodes, ...rates });
    else out.line(plainLine(news.stats, rates));
    if (--left <= 0) break;
  }
  return EXIT_OK;
}

/** @returns when somebody quits */
async function onTerminal(api: Api, out: Console): Promise<number> {
  const readings = withRates(api);
  // Before the terminal is taken: whoever cannot be reached is told of where it can be read.
  const first = await readings.next();
  if (first.done) return EXIT_OK;
  let shown: { stats: Stats; rates: Rates | undefined } | undefined;
  let state: TopState | undefined = {
    table: "workers",
    sortBy: "worker",
    lost: undefined,
    color: !out.env["NO_COLOR"],
  };
  const screen = new Screen((text) => out.raw(text));
  const { promise: quit, resolve: end } = Promise.withResolvers<void>();
  const draw = () => {
    if (state !== undefined && shown !== undefined)
      screen.draw(render(shown.stats, shown.rates, screen.size, state));
  };
  const take = ({ news, rates }: Reading) => {
    if (state === undefined) return;
    state = { ...state, lost: "lost" in news ? news.lost : undefined };
    if ("stats" in news) shown = { stats: news.stats, rates };
    draw();
  };
  const keys = (text: string) => {
    for (const key of text) if (state !== undefined) state = pressed(key, state);
    if (state === undefined) end();
    else draw();
  };
  screen.open(keys, draw);
  try {
    take(first.value);
    const reading = (async () => {
      for await (const each of readings) {
        if (state === undefined) return;
        take(each);
      }
    })();
    await Promise.race([quit, reading]);
  } finally {
    screen.close();
  }
  return EXIT_OK;
}

interface Reading {
  readonly news: News;
  /** Since the reading before; undefined for the first one of a beacon that was started anew. */
  readonly rates: Rates | undefined;
}

async function* withRates(api: Api): AsyncGenerator<Reading> {
  let earlier: Stats | undefined;
  for await (const news of follow(api)) {
    if ("lost" in news) {
      earlier = undefined; // what comes next may be another run's
      yield { news, rates: undefined };
      continue;
    }
    yield { news, rates: earlier && ratesBetween(earlier, news.stats) };
    earlier = news.stats;
  }
}
