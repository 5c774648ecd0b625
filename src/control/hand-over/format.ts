/**
 * The messages of an upgrade that are not a feature's section, and what sections are read with.
 * Words are little-endian, endpoints as in ffi/endpoint.ts. Times are ages, since each process has
 * a clock of its own.
 *
 * What one process hands to another of the same user needs no proof, but it is checked as what
 * comes from a file is: a mistake of one version must not bring the other into a state that there
 * is no way out of.
 */
import * as v from "valibot";
import { ENDPOINT_WORDS, LOCAL_NUMBERS_END } from "../../../ffi/endpoint.ts";
import { FormatError } from "./channel.ts";

/** Of all of it. Another number is another language: such a process is refused. */
export const FORMAT = 1;

export const count = v.pipe(v.number(), v.integer(), v.minValue(0));
export const text = v.pipe(v.string(), v.maxLength(1024));

const localNumbers = v.pipe(count, v.minValue(1), v.maxValue(LOCAL_NUMBERS_END - 1));
/** An endpoint's. */
const words = v.pipe(v.array(v.pipe(v.number(), v.integer())), v.length(ENDPOINT_WORDS));

/** The first message; with it, the sockets' descriptors, in the order of their group. */
export const offerSchema = v.object({
  format: v.literal(FORMAT),
  version: text,
  /** As it was configured. */
  addr: text,
  hashSecret: v.pipe(v.number(), v.integer(), v.minValue(-(2 ** 31)), v.maxValue(2 ** 31 - 1)),
  /** What the sockets have on. */
  offload: v.boolean(),
  steering: v.boolean(),
  /** Whether the state file may be replaced. */
  maySave: v.boolean(),
  /** Local addresses by the number that endpoints name; earlier versions send none. */
  locals: v.optional(
    v.pipe(v.array(v.tuple([localNumbers, words])), v.maxLength(LOCAL_NUMBERS_END)),
  ),
});
export type Offer = v.InferOutput<typeof offerSchema>;

export const formatSchema = v.object({ format: count });
/** Flags for an old process of an earlier version are in PREPARED. */
export const preparedSchema = v.object({
  version: text,
  /** Whether it reads sections that have no kind of message of their own. */
  takesSections: v.optional(v.boolean(), false),
});
/** What this version says of itself. An earlier one asks for the last three. */
export const PREPARED = {
  takesSections: true,
  cellLimits: 8,
  takesRemovals: true,
  takesListeners: true,
};
export const refusedSchema = v.object({ reason: text });

/** @throws FormatError */
export function readJson<Schema extends v.GenericSchema>(
  schema: Schema,
  body: Uint8Array,
): v.InferOutput<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new FormatError("a message is no JSON");
  }
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  throw new FormatError(
    `a message is not as it should be: ${v.getDotPath(issue) ?? "all of it"}: ${issue.message}`,
  );
}

/** Returns a copy, so that it starts where words may. @throws FormatError */
export function wordsOf(body: Uint8Array, each: number, of: string): Int32Array<ArrayBuffer> {
  if (body.length % (each * 4) !== 0) throw new FormatError(`${of} are cut short`);
  return new Int32Array(body.slice().buffer);
}

const SECTION_HEAD_BYTES = 4;

/** Frames a section: version, length of its name (2 bytes each), name, padding to 8, body. */
export function frameSection(name: string, version: number, body: Uint8Array): Uint8Array {
  const bodyAt = bodyAtOf(Buffer.byteLength(name));
  const bytes = Buffer.alloc(bodyAt + body.length);
  bytes.writeUInt16LE(version);
  bytes.writeUInt16LE(Buffer.byteLength(name), 2);
  bytes.write(name, SECTION_HEAD_BYTES);
  bytes.set(body, bodyAt);
  return bytes;
}

/** @throws FormatError */
export function readSection(bytes: Uint8Array): {
  name: string;
  version: number;
  body: Uint8Array;
} {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const nameBytes = view.length < SECTION_HEAD_BYTES ? Number.NaN : view.readUInt16LE(2);
  const bodyAt = bodyAtOf(nameBytes);
  if (!(bodyAt <= view.length)) throw new FormatError("a section's message is cut short");
  const name = view.toString("utf8", SECTION_HEAD_BYTES, SECTION_HEAD_BYTES + nameBytes);
  return { name, version: view.readUInt16LE(), body: bytes.subarray(bodyAt) };
}

const bodyAtOf = (nameBytes: number): number => Math.ceil((SECTION_HEAD_BYTES + nameBytes) / 8) * 8;
