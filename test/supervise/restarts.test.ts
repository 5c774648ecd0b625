import { expect, test } from "bun:test";
import { RESTARTS_MAX, Restarts, STEADY_MS } from "../../src/supervise/restarts.ts";

const DELAYS = [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000, 5000];

test("each restart in a row waits for longer, and the last one is given up", () => {
  const restarts = new Restarts();
  expect(DELAYS.length).toBe(RESTARTS_MAX);
  expect(DELAYS.map(() => restarts.crashed(0))).toEqual(DELAYS);
  expect(restarts.crashed(0)).toBeUndefined();
});

test("a process that served for long begins a new row, one that served for short does not", () => {
  const restarts = new Restarts();
  restarts.crashed(0);
  restarts.ready(1000);
  expect(restarts.crashed(1000 + STEADY_MS - 1)).toBe(200);
  restarts.ready(20_000);
  restarts.ready(29_000); // as after a reload
  expect(restarts.crashed(20_000 + STEADY_MS)).toBe(100);
});
