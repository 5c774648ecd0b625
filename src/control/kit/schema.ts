/** Schemas that statistics are made of. */
import * as v from "valibot";

export const text = v.string();
export const number = v.number();
/** A number that may not be known, or not exist. */
export const optional = v.nullable(number);
export const counts = v.pipe(v.record(text, number), v.readonly());

export const list = <T extends v.GenericSchema>(of: T) => v.pipe(v.array(of), v.readonly());

/** The value that a feature's `stats` schema describes. */
export type StatsOf<Entries extends v.ObjectEntries> = Readonly<
  v.InferOutput<v.StrictObjectSchema<Entries, undefined>>
>;
