/**
 * Steering: the program that the kernel runs on each datagram to pick a worker's socket. A Discover or a
 * PunchRequest goes to the worker that owns the sender's shard, a Relay to the one that owns its destination's: so
 * locks meet no rival, and what goes to one node meets in one batch and keeps its order. Everything else is spread
 * by flow.
 */
import { bpf, type Instruction, SOCKET_BY_FLOW } from "../../ffi/bpf.ts";
import {
  DISCOVER,
  DISCOVER_BYTES,
  DISCOVER_EX,
  FIRST_ID_AT,
  PUNCH_REQUEST,
  RELAY,
  RELAY_BYTES,
  SECOND_ID_AT,
} from "../protocol.ts";
import {
  HASH_MULTIPLIER_1,
  HASH_MULTIPLIER_2,
  HASH_SHIFT_1,
  HASH_SHIFT_2,
  SHARD_SHIFT,
} from "../shared/hash.ts";

/** The same function as nodeHash and shardOfHash of src/shared/hash.ts, for the kernel. */
export function steeringProgram(hashSecret: number, shards: number): Instruction[] {
  const hash = [
    bpf.xor(hashSecret),
    bpf.multiply(HASH_MULTIPLIER_1),
    bpf.copyToX(),
    bpf.shiftRight(HASH_SHIFT_1),
    bpf.xorX(),
    bpf.multiply(HASH_MULTIPLIER_2),
    bpf.copyToX(),
    bpf.shiftRight(HASH_SHIFT_2),
    bpf.xorX(),
    bpf.shiftRight(SHARD_SHIFT),
    bpf.multiply(shards),
    bpf.shiftRight(SHARD_SHIFT),
    bpf.returnA(),
  ];
  const byFlow = [bpf.return(SOCKET_BY_FLOW)];
  const secondId = [
    bpf.loadLength(),
    bpf.jumpIfAtLeast(RELAY_BYTES, 0, 1 + 2 + hash.length), // else to byFlow
    bpf.loadWord(SECOND_ID_AT),
    bpf.jump(1), // to hash
  ];
  const firstId = [bpf.loadWord(FIRST_ID_AT)];
  const toFirstId = secondId.length;
  const toFlow = secondId.length + firstId.length + hash.length;
  return [
    bpf.loadLength(),
    bpf.jumpIfAtLeast(DISCOVER_BYTES, 0, 5 + toFlow),
    bpf.loadByte(0),
    bpf.jumpIfEqual(RELAY, 3, 0), // to secondId
    bpf.jumpIfEqual(DISCOVER, 2 + toFirstId, 0),
    bpf.jumpIfEqual(DISCOVER_EX, 1 + toFirstId, 0),
    bpf.jumpIfEqual(PUNCH_REQUEST, toFirstId, toFlow),
    ...secondId,
    ...firstId,
    ...hash,
    ...byFlow,
  ];
}
