/** The page's access to its document: everything is set as text, never as markup. */

/** @throws Error if the page has no such element */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found as T;
}

export function create<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  { className = "", text = "" } = {},
  ...children: readonly Node[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  if (className !== "") element.className = className;
  if (text !== "") element.textContent = text;
  element.append(...children);
  return element;
}

/** Leaves alone what is so already: a text that is written again loses the reader's selection. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Shows a text, or hides the element where there is none. */
export function showNotice(element: HTMLElement, text: string): void {
  element.hidden = text === "";
  setText(element, text);
}

/** Shows texts as a list, hidden if empty; leaves items that stay. */
export function showNotices(list: HTMLElement, texts: readonly string[]): void {
  list.hidden = texts.length === 0;
  while (list.children.length > texts.length) list.lastElementChild!.remove();
  for (const [i, text] of texts.entries()) {
    const item = list.children[i];
    if (item === undefined) list.append(create("li", { text }));
    else setText(item, text);
  }
}

/** A bar of a share, 0 to 1. Its number is written beside it. */
export function createBar(): HTMLElement {
  const bar = create("span", { className: "track" }, create("i"));
  bar.ariaHidden = "true";
  return bar;
}

export function setBar(bar: HTMLElement, share: number): void {
  (bar.firstElementChild as HTMLElement).style.width = `${Math.min(1, Math.max(0, share)) * 100}%`;
}
