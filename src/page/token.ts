/** The admin token for remote readers: asked when needed, kept while the tab is open. */
import { byId, setText } from "./dom.ts";

/** By path: behind one proxy, other beacons share the origin, and this token is not theirs. */
const KEY = `beacon-admin-token:${location.pathname}`;
/** What can be in a header, and is in a token. */
const TOKEN = /^[!-~]+$/;

export function authorization(): Record<string, string> {
  const token = sessionStorage.getItem(KEY);
  return token === null ? {} : { authorization: `Bearer ${token}` };
}

export function hasToken(): boolean {
  return sessionStorage.getItem(KEY) !== null;
}

export function forgetToken(): void {
  sessionStorage.removeItem(KEY);
}

/** Shows the form until there is a token. @param why it is needed, or the last one failed */
export async function askForToken(why: string): Promise<void> {
  const form = byId<HTMLFormElement>("token-form");
  const input = byId<HTMLInputElement>("token");
  setText(byId("token-why"), why);
  form.hidden = false;
  input.focus();
  await new Promise<void>((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      const token = input.value.trim();
      if (!TOKEN.test(token)) {
        setText(byId("token-why"), "A token is printable ASCII without spaces.");
        return;
      }
      sessionStorage.setItem(KEY, token);
      resolve();
    };
  });
  input.value = "";
  form.hidden = true;
}
