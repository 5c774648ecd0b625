/** Something that answers as the admin API does, or as it should not. */

export interface Asked {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly authorization: string | null;
}

export class FakeApi {
  readonly asked: Asked[] = [];
  readonly #server: Bun.Server<undefined>;

  /** @param answer to a path; every answer has the API's header unless it has one already */
  constructor(answer: (asked: Asked) => Response) {
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: ({ method, url, headers }) => {
        const { pathname, search } = new URL(url);
        const asked = {
          method,
          path: pathname + search,
          authorization: headers.get("authorization"),
        };
        this.asked.push(asked);
        const response = answer(asked);
        if (!response.headers.has("beacon-api")) response.headers.set("beacon-api", "1");
        return response;
      },
    });
  }

  get url(): URL {
    return this.#server.url;
  }

  async stop(): Promise<void> {
    await this.#server.stop(true);
  }
}
