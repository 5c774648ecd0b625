import { expect, test } from "bun:test";
import fc from "fast-check";
import { WaitingClaims } from "../../../src/control/directory/waiting-claims.ts";
import { ClaimSums } from "../../../src/shared/claim-digest.ts";

const MAX = 5;
const step = fc.record({
  what: fc.constantFrom("add", "add", "add", "add", "take", "sweep"),
  nodeId: fc.integer({ min: 1, max: 8 }),
  timeMs: fc.nat({ max: 5000 }),
  mark: fc.integer({ min: 1, max: 2 }),
});

test("claims that wait are the last of each node, no more than there is room for, and their sums are kept", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const waiting = new WaitingClaims(MAX);
      const model = new Map<number, { timeMs: number; mark: number }>();
      for (const { what, nodeId, timeMs, mark } of steps) {
        if (what === "add") {
          // The node's earlier claim does not count any more, whether or not there is room.
          model.delete(nodeId);
          const hasRoom = model.size < MAX;
          expect(waiting.add(nodeId, { timeMs, mark })).toBe(hasRoom);
          if (hasRoom) model.set(nodeId, { timeMs, mark });
        } else if (what === "take") {
          expect(waiting.take(nodeId)).toEqual(model.get(nodeId));
          model.delete(nodeId);
        } else {
          waiting.sweep(mark, (id) => id > nodeId);
          for (const [id, claim] of model) if (claim.mark !== mark && id > nodeId) model.delete(id);
        }
        const sums = new ClaimSums();
        for (const [id, claim] of model) sums.add(id, claim.timeMs);
        expect([waiting.size, waiting.room, waiting.sums]).toEqual([
          model.size,
          MAX - model.size,
          sums.row(),
        ]);
      }
    }),
  );
});
