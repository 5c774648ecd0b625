/** From a chart's description to an SVG file that stands alone: readable on light and dark pages, and by screen readers. */
import * as echarts from "echarts";
import { COLOUR, darkStyle } from "./palette.ts";

/** Narrow, with large letters: at the 358 pixels that a phone leaves for it, they are 10 pixels high. */
export const WIDTH = 560;
export const FONT_SIZE = 16;
export const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";

export interface Picture {
  /** At most 52 letters: a line. */
  readonly title: string;
  /** What the data says, in a sentence. */
  readonly sentence: string;
  readonly height: number;
  readonly option: echarts.EChartsOption;
}

/** @returns the text of an SVG file; the same for the same picture, always */
export function drawSvg({ title, sentence, height, option }: Picture): string {
  const chart = echarts.init(null, null, { renderer: "svg", ssr: true, width: WIDTH, height });
  try {
    chart.setOption({
      animation: false,
      textStyle: { fontFamily: FONT, fontSize: FONT_SIZE, color: COLOUR.text },
      title: {
        ...{ text: title, left: 16, top: 12, padding: 0 },
        textStyle: { color: COLOUR.text, fontSize: FONT_SIZE + 2, fontWeight: 600 },
      },
      ...option,
    });
    return finish(chart.renderToSVGString(), title, sentence, height);
  } finally {
    chart.dispose();
  }
}

/** Takes out what serves pages with scripts, and puts in what a picture needs. */
function finish(svg: string, title: string, sentence: string, height: number): string {
  const drawn = svg
    .replace(/^<svg[^>]*>/, "")
    .replace(/<\/svg>\s*$/, "")
    .replace(/<style[^>]*>[\s\S]*?<\/style>/g, "")
    .replace(/ (?:class|ecmeta_\w+|pointer-events)="[^"]*"/g, "")
    // Numbered by all charts drawn so far in this process.
    .replace(/\bzr\d+-/g, "chart-")
    .replace(/\n+/g, "\n")
    .trim();
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-labelledby="title desc">`,
    `<title id="title">${escapeXml(title)}</title>`,
    `<desc id="desc">${escapeXml(sentence)}</desc>`,
    `<style>${darkStyle()}</style>`,
    `<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="8" fill="${COLOUR.card}" stroke="${COLOUR.border}"/>`,
    drawn,
    "</svg>\n",
  ].join("\n");
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
