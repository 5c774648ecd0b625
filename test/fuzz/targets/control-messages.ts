/**
 * What the kernel says beside a message: UDP_GRO's segment size, among whatever else, whole or
 * broken.
 */
import { CMSG_HEADER_BYTES, SOL_UDP, UDP_GRO } from "../../../ffi/abi.ts";
import { groSegmentBytes } from "../../../ffi/mmsg.ts";
import type { Choices } from "../choices.ts";
import { fail, type Seen, type Target } from "../target.ts";

const WORDS_MAX = 32;
/** Stands around what may be read, and is never a size that is there. */
const CANARY = 0x0bad_f00d;

export const CONTROL_MESSAGES: Target = {
  name: "control-messages",
  about: "control messages of a receive call, whole and broken",
  choiceBytes: 160,
  open: () => {
    const words = new Int32Array(3 * WORDS_MAX);
    return { check: (choices, seen) => checkOne(words, choices, seen) };
  },
};

function checkOne(words: Int32Array, choices: Choices, seen: Seen): void {
  words.fill(CANARY);
  const end = 2 * choices.below(WORDS_MAX / 2);
  for (let at = 0; at < end; ) {
    const whole = !choices.oneIn(4);
    const data = choices.below(5);
    const head = whole
      ? [
          CMSG_HEADER_BYTES + 4 * data,
          0,
          choices.pick([SOL_UDP, 1, 41]),
          choices.pick([UDP_GRO, 2]),
        ]
      : [choices.number(), choices.number(), choices.number(), choices.number()];
    for (const word of [
      ...head,
      ...Array.from({ length: data + (data & 1) }, () => choices.number()),
    ]) {
      if (at < end) words[WORDS_MAX + at++] = word;
    }
  }
  const controlBytes = Math.max(0, end * 4 - choices.below(4));
  seen.note(() => `${controlBytes} bytes: ${words.subarray(WORDS_MAX, WORDS_MAX + end).join()}`);
  const size = groSegmentBytes(words, WORDS_MAX, controlBytes);
  if (!Number.isInteger(size)) fail(`a size that is ${size}`);
  if (size === CANARY) fail("read what is not the kernel's");
  if (size !== 0 && !words.subarray(WORDS_MAX, WORDS_MAX + end).includes(size))
    fail(`${size} stands nowhere`);
  seen.outcome(size === 0 ? "none" : size < 0 ? "negative" : "size");
}
