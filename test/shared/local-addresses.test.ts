import { expect, test } from "bun:test";
import { endpointOf, LOCAL_NUMBERS_END } from "../../ffi/endpoint.ts";
import { LocalAddresses } from "../../src/shared/local-addresses.ts";
import { SharedMemory } from "../../src/shared/memory.ts";

const memory = () => new SharedMemory({ workers: 1, nodesMax: 1, routesMax: 1 });
const host = (i: number): Int32Array => endpointOf(`10.0.${i >> 8}.${i & 255}`, 0);

test("an address has one number, the same for all threads", () => {
  const shared = memory();
  const [one, other] = [new LocalAddresses(shared), new LocalAddresses(shared)];
  const numbers = [host(1), endpointOf("2001:db8::1", 0), host(2)].map((address) =>
    one.numberOf(address),
  );
  expect(numbers).toEqual([1, 2, 3]);
  expect(other.numberOf(host(2))).toBe(3);
  expect(one.numberOf(host(1))).toBe(1);
  expect(other.numberOf(host(9))).toBe(4);
  expect(one.numberOf(host(9))).toBe(4);
  expect([...one.address(4)!]).toEqual([...host(9)]);
});

test("the port does not matter, the interface of a link-local address does", () => {
  const locals = new LocalAddresses(memory());
  const [eth0, eth1] = [endpointOf("fe80::1", 0), endpointOf("fe80::1", 9001)];
  eth0[5] = 2;
  eth1[5] = 3;
  expect(locals.numberOf(host(1))).toBe(1);
  expect(locals.numberOf(endpointOf("10.0.0.1", 9001))).toBe(1);
  expect(locals.numberOf(eth0)).toBe(2);
  expect(locals.numberOf(eth1)).toBe(3);
});

test("beyond the last number an address gets none, and those before keep theirs", () => {
  const locals = new LocalAddresses(memory());
  for (let i = 1; i < LOCAL_NUMBERS_END; i++) {
    expect(locals.isFull).toBe(false);
    expect(locals.numberOf(host(i))).toBe(i);
  }
  expect(locals.isFull).toBe(true);
  expect(locals.numberOf(host(1000))).toBe(0);
  expect(locals.numberOf(host(1000))).toBe(0);
  for (let i = 1; i < LOCAL_NUMBERS_END; i++) expect(locals.numberOf(host(i))).toBe(i);
});

test("number 0 and vacant numbers have no address", () => {
  const locals = new LocalAddresses(memory());
  expect(locals.address(0)).toBeUndefined();
  expect(locals.address(1)).toBeUndefined();
});
