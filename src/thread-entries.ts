/**
 * The files that threads start from. Their URLs are made in this folder: in a compiled binary every
 * module has the place of the entry file, src/main.ts, and a path relative to that stays true.
 */
export const WORKER_ENTRY = new URL("./data/worker.ts", import.meta.url);
export const FILES_ENTRY = new URL("./control/nodes/files-thread.ts", import.meta.url);
export const OUTPUT_ENTRY = new URL("./control/log/output-thread.ts", import.meta.url);
