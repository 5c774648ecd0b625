/** What a registry sends: frames in any pieces, and answers of any shape. */
import * as v from "valibot";
import {
  FRAME_BYTES_MAX,
  FrameReader,
  frameOf,
  type Question,
  RegistryError,
  readAnswer,
} from "../../../src/control/registry/protocol.ts";
import type { Choices } from "../choices.ts";
import { jsonValue, mutateBytes, mutateText } from "../mutate.ts";
import { fail, mustBe, type Seen, type Target } from "../target.ts";

/** As the rounds ask. */
const LISTING: Question<{ beacons: { id: number; addr: string }[] }> = {
  request: { type: "beacon_list" },
  answer: v.object({
    type: v.literal("beacon_list_ok"),
    beacons: v.array(v.object({ id: v.number(), addr: v.string() })),
  }),
  expected: "a list of beacons",
};
const SECRET = "s3cret-of-somebody";
const LISTED = JSON.stringify({
  type: "beacon_list_ok",
  beacons: [{ id: 7, addr: "203.0.113.5:9001", token: SECRET }],
});
const REFUSED = JSON.stringify({ type: "error", error: "no" });

export const REGISTRY: Target = {
  name: "registry",
  about: "a registry's frames and answers",
  choiceBytes: 200,
  open: () => ({ check: checkRegistry }),
};

function checkRegistry(choices: Choices, seen: Seen): void {
  const whole = !choices.oneIn(3);
  const frames = choices
    .some(3, () => answerText(choices))
    .map((text) => new Uint8Array(Buffer.from(text)));
  const headed = frames.map((json) => {
    const frame = new Uint8Array(4 + json.length);
    new DataView(frame.buffer).setUint32(0, json.length);
    frame.set(json, 4);
    return frame;
  });
  const right = new Uint8Array(Buffer.concat(headed));
  const stream = whole ? right : mutateBytes(choices, right, 4);
  seen.note(() => Buffer.from(stream).toString("hex"));
  const reader = new FrameReader();
  const read: Uint8Array[] = [];
  let failed = false;
  try {
    for (let at = 0; at < stream.length; ) {
      const end = at + 1 + choices.below(40);
      for (const json of reader.push(stream.subarray(at, end))) read.push(json.slice());
      at = end;
    }
  } catch (error) {
    if (!(error instanceof RegistryError) || error.code !== "too_big") throw error;
    failed = true;
    seen.outcome("too_big");
  }
  if (whole) {
    mustBe("frames", read.length, frames.length);
    for (const [i, json] of read.entries()) mustBe("a frame", Buffer.compare(json, frames[i]!), 0);
  }
  const bytes = read.reduce((sum, json) => sum + 4 + json.length, 0);
  if (bytes > stream.length || (failed && whole)) fail("more was read than came");
  for (const json of read) {
    if (json.length > FRAME_BYTES_MAX) fail("a frame above the limit");
    checkAnswer(json, seen);
  }
}

function checkAnswer(json: Uint8Array, seen: Seen): void {
  try {
    const answered = readAnswer(json, LISTING);
    if ("refusal" in answered) seen.outcome("refusal");
    else {
      seen.outcome(`beacons ${Math.min(answered.answer.beacons.length, 2)}`);
      for (const { id, addr } of answered.answer.beacons)
        if (typeof id !== "number" || typeof addr !== "string") fail("a beacon of another shape");
    }
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    mustBe("code", error.code, "invalid");
    if (error.message.includes(SECRET) || /[\p{C}]/u.test(error.message))
      fail(`says what was sent: ${error.message}`);
    seen.outcome(error.message.replace(/\d+/g, "n").slice(0, 80));
  }
}

function answerText(choices: Choices): string {
  const text = choices.pick([
    () => LISTED,
    () => REFUSED,
    () => JSON.stringify({ type: "beacon_list_ok", beacons: jsonValue(choices) }),
    () =>
      JSON.stringify({
        type: "beacon_list_ok",
        beacons: [{ id: jsonValue(choices, 1), addr: jsonValue(choices, 1) }],
      }),
    () => "[".repeat(choices.below(5000)),
    () => String(frameOf({ [SECRET]: jsonValue(choices) })),
  ])();
  return choices.oneIn(2) ? mutateText(choices, text, 4) : text;
}
