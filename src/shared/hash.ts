/**
 * Hashes: of a node id, which says where the node is kept, and of an endpoint, which says where a
 * source's use of limits is.
 *
 * A node's says which shard, and so which worker, and which slot in it.
 *
 * It is keyed with a secret of the process, so that nobody can choose node ids that all meet in one
 * shard or one chain of slots. The first step runs inside the kernel too
 * (src/control/sockets/steering.ts), which is why it uses only what classic BPF has: 32-bit
 * multiply, xor and shift. Multipliers: odd, from MurmurHash3's finalizer.
 */
import { ENDPOINT_PORT_MASK, isIPv4 } from "../../ffi/endpoint.ts";

export const HASH_MULTIPLIER_1 = 0x85eb_ca6b;
export const HASH_SHIFT_1 = 15;
export const HASH_MULTIPLIER_2 = 0xc2b2_ae35;
export const HASH_SHIFT_2 = 16;
export const SHARD_SHIFT = 16;
/** Spreads what is left within a shard; 2^32 / golden ratio, odd. */
const SLOT_MULTIPLIER = 0x9e37_79b1;

/** @returns a signed 32-bit hash of a node id, given as signed or unsigned 32-bit */
export function nodeHash(nodeId: number, secret: number): number {
  let hash = Math.imul(nodeId ^ secret, HASH_MULTIPLIER_1);
  hash ^= hash >>> HASH_SHIFT_1;
  hash = Math.imul(hash, HASH_MULTIPLIER_2);
  return hash ^ (hash >>> HASH_SHIFT_2);
}

/**
 * The shard, 0 to shards - 1, of a node with this hash: the upper 16 bits as a fraction of the
 * shards. No modulo: of a number that may pass 2^31 it would be one of floating point.
 */
export function shardOfHash(hash: number, shards: number): number {
  return Math.imul(hash >>> SHARD_SHIFT, shards) >>> SHARD_SHIFT;
}

/** The slot, 0 to slots - 1, where the search for a node with this hash begins. */
export function slotOfHash(hash: number, slots: number): number {
  return ((Math.imul(hash, SLOT_MULTIPLIER) >>> 0) * slots * 2 ** -32) | 0;
}

/** @returns a signed 32-bit hash of the address and port of the endpoint at `endpoint[at]` */
export function endpointHash(endpoint: Int32Array, at: number, secret: number): number {
  let hash = mixed(secret, endpoint[at]! & ENDPOINT_PORT_MASK);
  hash = mixed(hash, endpoint[at + 1]!);
  hash = mixed(hash, endpoint[at + 2]!);
  hash = mixed(hash, endpoint[at + 3]!);
  return finished(mixed(hash, endpoint[at + 4]!));
}

/**
 * @returns a signed 32-bit hash of whose the address of the endpoint at `endpoint[at]` is: all of
 * an IPv4 address, and the first 64 bits
 * of an IPv6 one, as a host has the other 64 for itself (RFC 4291, 2.5.4)
 */
export function addressHash(endpoint: Int32Array, at: number, secret: number): number {
  if (isIPv4(endpoint, at)) return finished(mixed(secret, endpoint[at + 4]!));
  return finished(mixed(mixed(~secret, endpoint[at + 1]!), endpoint[at + 2]!));
}

/** @returns a signed 32-bit hash of three words */
export const wordsHash = (one: number, two: number, three: number, key: number): number =>
  finished(mixed(mixed(mixed(key, one), two), three));

function mixed(hash: number, word: number): number {
  const product = Math.imul(hash ^ word, HASH_MULTIPLIER_1);
  return product ^ (product >>> HASH_SHIFT_1);
}

function finished(hash: number): number {
  const product = Math.imul(hash, HASH_MULTIPLIER_2);
  return product ^ (product >>> HASH_SHIFT_2);
}
