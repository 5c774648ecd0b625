/**
 * The page's files as text. To be imported when they are first asked for: under `bun run` that
 * bundles them, in a binary they are there.
 */
import { bundledPage } from "./page-bundle.ts" with { type: "macro" };

export const pageFiles: ReturnType<typeof bundledPage> = bundledPage();
