/**
 * The colours of charts, by role. A chart is drawn in those for light pages; its style sheet replaces each by its partner on
 * dark pages. So a role's light colour must be no other role's.
 *
 * Series have the colours of Okabe and Ito, which colour-blind readers tell apart, in shades with contrast to the card.
 */
interface Shades {
  readonly light: `#${string}`;
  readonly dark: `#${string}`;
}

const PALETTE = {
  card: { light: "#ffffff", dark: "#0d1117" },
  border: { light: "#d0d7de", dark: "#3d444d" },
  text: { light: "#1f2328", dark: "#f0f6fc" },
  /** Axes and their words. */
  quiet: { light: "#59636e", dark: "#a5adb8" },
  grid: { light: "#e4e8ec", dark: "#262c36" },
  blue: { light: "#0072b2", dark: "#56b4e9" },
  vermilion: { light: "#d55e00", dark: "#ff9248" },
  green: { light: "#00805d", dark: "#33c79b" },
  purple: { light: "#b0508a", dark: "#e29ac4" },
} as const satisfies Record<string, Shades>;

export type Role = keyof typeof PALETTE;

/** What to draw with. */
export const COLOUR = Object.fromEntries(
  Object.entries(PALETTE).map(([role, { light }]) => [role, light]),
) as Record<Role, string>;

/** CSS that draws the same chart for dark pages. */
export function darkStyle(): string {
  const rules = Object.values(PALETTE).flatMap(({ light, dark }) => [
    `[fill="${light}"]{fill:${dark}}`,
    `[stroke="${light}"]{stroke:${dark}}`,
  ]);
  return `@media (prefers-color-scheme:dark){${rules.join("")}}`;
}
