/** A beacon's numbers as they come, across its restarts. */
import type { Stats } from "../../features.ts";
import { type Api, ApiError } from "../api.ts";
import { statsOf } from "../reading.ts";

/** A reading, or why there is none for now. */
export type News = { readonly stats: Stats } | { readonly lost: string };

const RETRY_MS = 1000;

/** Yields once a second, without end. @throws ApiError if the beacon is never reached */
export async function* follow(api: Api, retryMs = RETRY_MS): AsyncGenerator<News, never> {
  let wasThere = false;
  for (;;) {
    let lost = `${api.url}: the connection has ended`;
    try {
      for await (const line of api.lines("api/stats/stream")) {
        const stats = statsOf(line, api.url);
        wasThere = true;
        yield { stats };
      }
    } catch (error) {
      if (!(error instanceof ApiError) || !wasThere) throw error;
      lost = error.message;
    }
    yield { lost };
    await Bun.sleep(retryMs);
  }
}
