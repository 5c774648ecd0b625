/** HTTP answers: not cached, not sniffed, not embedded by pages of other origins. */

const HEADERS = {
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  "cross-origin-resource-policy": "same-origin",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
};

type Headers = Readonly<Record<string, string>>;

/** One line of text. */
export function text(status: number, line: string, headers: Headers = {}): Response {
  const type = { "content-type": "text/plain; charset=utf-8" };
  return new Response(`${line}\n`, { status, headers: { ...HEADERS, ...type, ...headers } });
}

export function json(value: unknown): Response {
  return Response.json(value, { headers: HEADERS });
}

/** A text that is something else than plain. */
export function body(content: string, contentType: string): Response {
  return new Response(content, { headers: { ...HEADERS, "content-type": contentType } });
}

const streamed = new WeakSet<Response>();

/** A text without an end that is known. */
export function stream(
  content: ReadableStream,
  contentType: string,
  headers: Headers = {},
): Response {
  const answer = new Response(content, {
    headers: { ...HEADERS, "content-type": contentType, ...headers },
  });
  streamed.add(answer);
  return answer;
}

/** Whether an answer is one of `stream`: it leaves in parts. */
export const isStreamed = (answer: Response): boolean => streamed.has(answer);

/**
 * For requests that no route takes: 405 where there is something for another method, else 404.
 * @param gets paths for which there is GET; a part that begins with a colon stands for any
 * @param posts likewise of POST
 */
export function refusal(
  { method, url }: Request,
  gets: readonly string[],
  posts: readonly string[] = [],
): Response {
  const path = URL.parse(url)?.pathname ?? "";
  const isAt = (pattern: string) => matches(pattern, path);
  if (gets.some(isAt) && method !== "GET" && method !== "HEAD")
    return text(405, "only GET is answered here", { allow: "GET, HEAD" });
  if (posts.some(isAt) && method !== "POST")
    return text(405, "only POST is answered here", { allow: "POST" });
  return text(404, `not found: there are ${gets.join(", ")}`);
}

function matches(pattern: string, path: string): boolean {
  const parts = path.split("/");
  const wanted = pattern.split("/");
  return (
    wanted.length === parts.length &&
    wanted.every((part, i) => (part.startsWith(":") ? parts[i] !== "" : part === parts[i]))
  );
}
