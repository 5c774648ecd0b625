/** A table whose rows come and go; those that stay are written anew only where they changed. */
import { create, createBar, setBar, setText } from "./dom.ts";

/** @property share draws a bar, 0 to 1 */
export type Cell =
  | string
  | { readonly text: string; readonly share?: number; readonly isBad?: boolean };

/** More would slow down the browser, and be read by nobody. */
const ROWS_MAX = 2000;

export class Table {
  readonly #body = create("tbody");
  readonly #scroll: HTMLElement;
  readonly #empty: HTMLElement;
  readonly #rest = create("p", { className: "faint" });

  /**
   * @param place where it goes
   * @param label what a screen reader calls the part that scrolls
   * @param columns of which the first names the row
   * @param empty said instead of a table without rows
   */
  constructor(place: HTMLElement, label: string, columns: readonly string[], empty: string) {
    const head = create("tr", {}, ...columns.map((text) => columnHead(text)));
    const table = create("table", {}, create("thead", {}, head), this.#body);
    this.#scroll = create("div", { className: "scroll" }, table);
    this.#scroll.tabIndex = 0; // so that it scrolls by keyboard
    this.#scroll.role = "region";
    this.#scroll.ariaLabel = label;
    this.#empty = create("p", { className: "faint", text: empty });
    place.append(this.#scroll, this.#rest, this.#empty);
    this.show([]);
  }

  show(rows: readonly (readonly Cell[])[]): void {
    const shown = rows.slice(0, ROWS_MAX);
    this.#scroll.hidden = rows.length === 0;
    this.#empty.hidden = rows.length > 0;
    this.#rest.hidden = rows.length <= ROWS_MAX;
    setText(this.#rest, `and ${rows.length - shown.length} more`);
    while (this.#body.rows.length > shown.length) this.#body.deleteRow(-1);
    for (const [i, cells] of shown.entries()) {
      const row = this.#body.rows[i] ?? this.#body.appendChild(newRow(cells.length));
      for (const [j, cell] of cells.entries()) showCell(row.cells[j]!, cell);
    }
  }
}

function columnHead(text: string): HTMLElement {
  const head = create("th", { text });
  head.scope = "col";
  return head;
}

function newRow(length: number): HTMLTableRowElement {
  const name = create("th");
  name.scope = "row";
  return create("tr", {}, name, ...Array.from({ length: length - 1 }, () => create("td")));
}

function showCell(place: HTMLElement, cell: Cell): void {
  const {
    text,
    share = undefined,
    isBad = false,
  } = typeof cell === "string" ? { text: cell } : cell;
  place.classList.toggle("warn", isBad);
  if (share === undefined) {
    setText(place, text);
    return;
  }
  if (place.childElementCount === 0) place.replaceChildren(create("span"), createBar());
  setText(place.children[0]!, text);
  setBar(place.children[1] as HTMLElement, share);
}
