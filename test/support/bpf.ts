/**
 * An interpreter of classic BPF as the kernel runs it for SO_ATTACH_REUSEPORT_CBPF, written from
 * the kernel's documentation (Documentation/networking/filter.rst) and not from ffi/bpf.ts: codes
 * are taken apart by class, size, mode and operation, so that a wrong code is refused or does
 * something else.
 */
import type { Instruction } from "../../ffi/bpf.ts";

// <linux/bpf_common.h>
const BPF_LD = 0x00;
const BPF_ALU = 0x04;
const BPF_JMP = 0x05;
const BPF_RET = 0x06;
const BPF_MISC = 0x07;

const BPF_A = 0x10;
const BPF_X = 0x08;
const BPF_TXA = 0x80;

/** How much a load takes, by its size bits: BPF_W, BPF_H, BPF_B. */
const LOAD_BYTES: Record<number, number> = { 0: 4, 8: 2, 16: 1 };

export class BadProgram extends Error {}

/** The alu's operation on two unsigned 32-bit numbers; undefined where it has none. */
function calculate(operation: number, a: number, operand: number): number | undefined {
  switch (operation) {
    case 0x00:
      return (a + operand) >>> 0;
    case 0x10:
      return (a - operand) >>> 0;
    case 0x20:
      return Number((BigInt(a) * BigInt(operand)) & 0xffff_ffffn);
    case 0x30:
      return operand === 0 ? undefined : Math.floor(a / operand);
    case 0x40:
      return (a | operand) >>> 0;
    case 0x50:
      return (a & operand) >>> 0;
    case 0x60:
      return operand > 31 ? undefined : (a << operand) >>> 0;
    case 0x70:
      return operand > 31 ? undefined : a >>> operand;
    case 0x90:
      return operand === 0 ? undefined : a % operand;
    case 0xa0:
      return (a ^ operand) >>> 0;
    default:
      return undefined;
  }
}

/** Whether a jump's test holds; undefined where there is no such test. */
function holds(operation: number, a: number, operand: number): boolean | undefined {
  switch (operation) {
    case 0x10:
      return a === operand;
    case 0x20:
      return a > operand;
    case 0x30:
      return a >= operand;
    case 0x40:
      return (a & operand) !== 0;
    default:
      return undefined;
  }
}

/**
 * Runs a program on one datagram.
 * @returns what the program returns, unsigned; 0 for a load beyond the datagram's end
 * @throws BadProgram for what the kernel's checker would not let in
 */
export function interpret(program: readonly Instruction[], datagram: Uint8Array): number {
  let a = 0;
  let x = 0;
  for (let at = 0; ; at++) {
    const step = program[at];
    if (step === undefined) throw new BadProgram(`runs beyond its end, at ${at}`);
    const { code, jt, jf, k } = step;
    if (k !== k >>> 0 || jt !== (jt & 0xff) || jf !== (jf & 0xff))
      throw new BadProgram(`a field of ${at}`);
    const operand = (code & BPF_X) !== 0 ? x : k;
    switch (code & 0x07) {
      case BPF_LD: {
        const mode = code & 0xe0;
        const bytes = LOAD_BYTES[code & 0x18];
        if (bytes === undefined) throw new BadProgram(`load of ${code}`);
        if (mode === 0x80 && bytes === 4) {
          a = datagram.length; // BPF_LEN
          break;
        }
        if (mode === 0x00 && bytes === 4) {
          a = k; // BPF_IMM
          break;
        }
        if (mode !== 0x20 && mode !== 0x40) throw new BadProgram(`load of ${code}`);
        const from = mode === 0x20 ? k : x + k; // BPF_ABS, BPF_IND
        if (from + bytes > datagram.length) return 0;
        a = 0;
        for (let i = 0; i < bytes; i++) a = a * 256 + datagram[from + i]!;
        break;
      }
      case BPF_ALU: {
        const result = calculate(code & 0xf0, a, operand);
        if (result === undefined) throw new BadProgram(`alu of ${code} with ${operand}`);
        a = result;
        break;
      }
      case BPF_JMP: {
        if ((code & 0xf0) === 0x00) {
          at += k; // BPF_JA
          break;
        }
        const taken = holds(code & 0xf0, a, operand);
        if (taken === undefined) throw new BadProgram(`jump of ${code}`);
        at += taken ? jt : jf;
        break;
      }
      case BPF_RET:
        return (code & BPF_A) !== 0 ? a : k;
      case BPF_MISC:
        if ((code & 0xf8) === BPF_TXA) a = x;
        else x = a;
        break;
      default: // BPF_LDX, BPF_ST, BPF_STX: nothing here needs them
        throw new BadProgram(`code ${code}`);
    }
  }
}
