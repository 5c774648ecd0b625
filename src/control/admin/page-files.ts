/** The page's files as text; imported on first use, since `bun run` bundles them then. */
import { bundledPage } from "./page-bundle.ts" with { type: "macro" };

export const pageFiles: ReturnType<typeof bundledPage> = bundledPage();
