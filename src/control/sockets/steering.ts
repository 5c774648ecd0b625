/**
 * Steering: the program that the kernel runs on each message to pick a worker's socket. What writes
 * to the node table, a Discover or a PunchRequest, goes to the worker that owns the sender's shard,
 * so that its lock meets no rival. Everything else is spread by flow, that is by the sender's
 * address and port.
 *
 * Relays are not steered by their destination, though that would bring all packets to one node
 * together. The program sees only the first packet of a message; those merged behind it may be for
 * other nodes, and a later message for such a node, in another worker, would overtake them (78 of
 * 500 times, 2 workers, 2026-11). By flow, one sender's packets to one node stay in one worker, and
 * in order.
 */
import { bpf, type Instruction, SOCKET_BY_FLOW } from "../../../ffi/bpf.ts";
import {
  DISCOVER,
  DISCOVER_BYTES,
  DISCOVER_EX,
  FIRST_ID_AT,
  PUNCH_REQUEST,
} from "../../protocol.ts";
import {
  HASH_MULTIPLIER_1,
  HASH_MULTIPLIER_2,
  HASH_SHIFT_1,
  HASH_SHIFT_2,
  SHARD_SHIFT,
} from "../../shared/hash.ts";

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
  const steered = [bpf.loadWord(FIRST_ID_AT), ...hash];
  return [
    bpf.loadLength(),
    bpf.jumpIfAtLeast(DISCOVER_BYTES, 0, 4 + steered.length),
    bpf.loadByte(0),
    bpf.jumpIfEqual(DISCOVER, 2, 0),
    bpf.jumpIfEqual(DISCOVER_EX, 1, 0),
    bpf.jumpIfEqual(PUNCH_REQUEST, 0, steered.length),
    ...steered,
    bpf.return(SOCKET_BY_FLOW),
  ];
}
