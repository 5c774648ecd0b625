import { expect, test } from "bun:test";
import { Beat } from "../../../src/control/directory/beat.ts";

test("all that wait are woken together, and wait for the next one after that", async () => {
  const sleeping: { readonly ms: number; readonly wake: () => void }[] = [];
  const beat = new Beat(20, (ms) => new Promise((wake) => sleeping.push({ ms, wake })));
  const woken: string[] = [];
  const loop = async (name: string) => {
    for (;;) {
      await beat.next();
      woken.push(name);
    }
  };
  void loop("a");
  void loop("b");
  for (let beats = 1; beats <= 3; beats++) {
    expect(sleeping).toHaveLength(1);
    const { ms, wake } = sleeping.pop()!;
    expect(ms).toBe(20);
    wake();
    await new Promise(setImmediate);
    expect(woken.join("")).toBe("ab".repeat(beats));
  }
});
