/**
 * The addresses of this host that nodes and peers send to, by number, in shared memory.
 *
 * A wildcard socket receives at every address of its host. A NAT or a connected socket on the other
 * side only admits what comes from the address that its client sent to, so each endpoint carries
 * the number of that local address (ffi/endpoint.ts), and a send batch turns the number into the
 * source address of a message.
 *
 * Any thread adds an address when a datagram was sent to it, without a lock: it claims a vacant
 * entry, writes the address and then marks the entry as valid. Entries stay for the life of the
 * process, as slots anywhere may carry their numbers. Two threads that add the same address at the
 * same time may give it two numbers; the lower one is found from then on, and both mean the same.
 *
 *   word 0     VACANT, CLAIMED or VALID
 *   words 1-5  address and scope id, as in an endpoint
 */
import { ENDPOINT_WORDS, LOCAL_NUMBERS_END } from "../../ffi/endpoint.ts";
import type { LocalAddressList } from "../../ffi/mmsg.ts";
import { LOCAL_ADDRESS_WORDS, type SharedMemory } from "./memory.ts";

const VACANT = 0;
const CLAIMED = 1;
const VALID = 2;

export class LocalAddresses implements LocalAddressList {
  readonly words: Int32Array;
  readonly #first: number;
  /** The address that was asked for last: nearly always that of the next datagram, too. */
  readonly #last = new Int32Array(new ArrayBuffer(ENDPOINT_WORDS * 4));
  #lastNumber = 0;

  constructor(memory: SharedMemory) {
    this.words = memory.words;
    this.#first = memory.localAddressesAt;
  }

  at(number: number): number {
    return this.#first + number * LOCAL_ADDRESS_WORDS;
  }

  /**
   * @param address as an endpoint, at `address[0]`; the port does not matter
   * @returns its number, which it has from now on if it had none; 0 if there is no room for another
   * one
   */
  numberOf(address: Int32Array): number {
    if (this.#lastNumber !== 0 && isSame(this.#last, 0, address)) return this.#lastNumber;
    const number = this.#find(address) || this.#add(address);
    this.#last.set(address);
    this.#lastNumber = number;
    return number;
  }

  /** Whether there is no room for another address. */
  get isFull(): boolean {
    return Atomics.load(this.words, this.at(LOCAL_NUMBERS_END - 1)) !== VACANT;
  }

  /** Returns a copy of the address as an endpoint with port 0; undefined if there is none. */
  address(number: number): Int32Array | undefined {
    const at = this.at(number);
    if (number === 0 || Atomics.load(this.words, at) !== VALID) return undefined;
    const address = this.words.slice(at, at + ENDPOINT_WORDS);
    address[0] = 0;
    return address;
  }

  #find(address: Int32Array): number {
    for (let number = 1; number < LOCAL_NUMBERS_END; number++) {
      const at = this.at(number);
      const state = Atomics.load(this.words, at);
      if (state === VACANT) return 0;
      if (state === VALID && isSame(this.words, at, address)) return number;
    }
    return 0;
  }

  #add(address: Int32Array): number {
    if (this.isFull) return 0;
    for (let number = 1; number < LOCAL_NUMBERS_END; number++) {
      const at = this.at(number);
      if (Atomics.compareExchange(this.words, at, VACANT, CLAIMED) !== VACANT) continue;
      for (let word = 1; word < ENDPOINT_WORDS; word++) this.words[at + word] = address[word]!;
      Atomics.store(this.words, at, VALID);
      return this.#find(address); // another thread may have added it at a lower number meanwhile
    }
    return 0;
  }
}

function isSame(words: Int32Array, at: number, address: Int32Array): boolean {
  let differs = 0;
  for (let word = 1; word < ENDPOINT_WORDS; word++) differs |= words[at + word]! ^ address[word]!;
  return differs === 0;
}
