/**
 * The page at "/": what it looks like and does, and nothing of the beacon, so everybody gets it who
 * reaches HTTP. It reads the admin API as whoever looks at it.
 */
import type { Logger } from "pino";
import { text } from "../kit/answers.ts";

/** The page loads only from this server, runs nothing inline, and cannot be framed. */
const HEADERS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  // Kept, but asked for again each time: another version of the beacon has another page.
  "cache-control": "no-cache",
};

const TYPES = {
  html: "text/html; charset=utf-8",
  script: "text/javascript; charset=utf-8",
  style: "text/css; charset=utf-8",
  icon: "image/svg+xml",
} as const;

type File = keyof typeof TYPES;

const PATHS: Readonly<Record<string, File>> = {
  "/": "html",
  "/page/app.js": "script",
  "/page/style.css": "style",
  "/page/icon.svg": "icon",
};

/** The handlers of the page's files, by path. */
export function pageRoutes(log: Logger): Record<string, (request: Request) => Promise<Response>> {
  return Object.fromEntries(
    Object.entries(PATHS).map(([path, file]) => [path, (request) => serve(file, request, log)]),
  );
}

async function serve(file: File, request: Request, log: Logger): Promise<Response> {
  let content: string;
  try {
    content = (await import("./page-files.ts")).pageFiles[file];
  } catch (error) {
    log.error({ err: error }, "the page cannot be made");
    return text(500, "the page cannot be made; the log says why");
  }
  const headers = { ...HEADERS, "content-type": TYPES[file], etag: etagOf(content) };
  return request.headers.get("if-none-match") === headers.etag
    ? new Response(null, { status: 304, headers })
    : new Response(content, { headers });
}

function etagOf(content: string): string {
  return `"${Bun.hash(content).toString(36)}"`;
}
