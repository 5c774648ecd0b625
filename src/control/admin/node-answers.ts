/** The admin API about nodes: what is asked for, read out of a request, and what comes of it. */
import * as v from "valibot";
import { ConfigError } from "../../config/units.ts";
import { json, text } from "../kit/answers.ts";
import { prefixOf } from "../limits/limits.ts";
import { type NodeList, type NodeQuery, PAGE_NODES_MAX } from "../nodes/list.ts";

const ID_MAX = 2 ** 32 - 1;
const PAGE_NODES = 100;

/** What a removal comes to; "contended": not now, as the shard's lock could not be had. */
export type Disconnection = "local" | "bridged" | "absent" | "contended";

/** A whole number in decimal digits. */
function whole(min: number, max: number) {
  const message = `must be a whole number from ${min} to ${max}`;
  return v.pipe(
    v.string(),
    v.regex(/^\d{1,16}$/, message),
    v.transform(Number),
    v.check((value) => value >= min && value <= max, message),
  );
}

const prefix = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    try {
      return prefixOf(dataset.value);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      addIssue({ message: error.message });
      return NEVER;
    }
  }),
);

const seconds = v.optional(whole(0, Number.MAX_SAFE_INTEGER));

const query = v.strictObject({
  limit: v.optional(whole(1, PAGE_NODES_MAX), String(PAGE_NODES)),
  after: v.optional(whole(0, ID_MAX), "0"),
  prefix: v.optional(prefix),
  "min-age": seconds,
  "max-age": seconds,
  bridged: v.optional(
    v.pipe(
      v.picklist(["true", "false"], "must be true or false"),
      v.transform((value) => value === "true"),
    ),
  ),
});

/** @returns the query, or what is wrong with it, in a sentence */
export function nodeQueryOf(params: URLSearchParams): NodeQuery | string {
  const given = Object.fromEntries(params);
  if (Object.keys(given).length !== params.size) return "each parameter may be given once";
  const read = v.safeParse(query, given);
  if (read.success) {
    const { "min-age": minAgeS, "max-age": maxAgeS, ...rest } = read.output;
    return { ...rest, minAgeS, maxAgeS };
  }
  const [issue] = read.issues;
  const name = String(issue.path?.[0]?.key);
  if (!Object.hasOwn(query.entries, name))
    return `no such parameter: there are ${Object.keys(query.entries).join(", ")}`;
  return `${name}: ${issue.message}`;
}

/** @returns an id that a node may have, unsigned, or undefined */
export function nodeIdOf(written: string | undefined): number | undefined {
  if (written === undefined || !/^\d{1,10}$/.test(written)) return undefined;
  const id = Number(written);
  return id >= 1 && id <= ID_MAX ? id : undefined;
}

export async function answerPage(list: NodeList, request: Request): Promise<Response> {
  const wanted = nodeQueryOf(new URL(request.url).searchParams);
  if (typeof wanted === "string") return text(400, wanted);
  const page = await list.page(wanted, request.signal);
  return page === undefined
    ? text(503, "too many pages are asked for at once: try again")
    : json(page);
}

/** Has `answer` see to the node that a path names. */
export function answerNode(
  written: string | undefined,
  answer: (nodeId: number) => Response | Promise<Response>,
): Response | Promise<Response> {
  const nodeId = nodeIdOf(written);
  return nodeId === undefined
    ? text(400, `a node id is a whole number from 1 to ${ID_MAX}`)
    : answer(nodeId);
}

export function answerDisconnect(id: number, was: Disconnection): Response {
  switch (was) {
    case "absent":
      return text(404, `node ${id} is not at this beacon`);
    case "contended":
      return text(503, `node ${id} could not be removed now: try again`);
    default:
      return json({ id, was });
  }
}
