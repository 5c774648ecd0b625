/** Numbers across a beacon's restarts. */
import { expect, test } from "bun:test";
import { Api } from "../../../src/cli/api.ts";
import { follow } from "../../../src/cli/top/follow.ts";
import { FakeApi } from "../support/fake.ts";
import { statsWith } from "../support/stats.ts";

test("goes on when the connection ends, or brings something else; not if it never began", async () => {
  const bodies = [
    JSON.stringify(statsWith({ nodes: 1 })),
    "{}",
    JSON.stringify(statsWith({ nodes: 2 })),
  ];
  const fake = new FakeApi(() => new Response(`${bodies.shift()}\n`));
  const news = follow(new Api(fake.url), 1);
  expect((await news.next()).value).toMatchObject({ stats: { nodes: 1 } });
  expect((await news.next()).value).toEqual({ lost: expect.stringContaining("has ended") });
  expect((await news.next()).value).toEqual({ lost: expect.stringContaining("not understood") });
  expect((await news.next()).value).toMatchObject({ stats: { nodes: 2 } });
  await fake.stop();
  let last = await news.next();
  while (!JSON.stringify(last.value).includes("refused")) last = await news.next();
  await expect(follow(new Api(fake.url), 1).next()).rejects.toThrow("connection refused");
});
