// Questions to the management API, with the key of this tab.

import { key } from "./session.js";

/** What the API answered instead; `status` is 0 where it did not answer at all. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Return the document at `path` below /v1/. `parameters`: empty ones are left out. Throws Refused. */
export async function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value != null));
  const target = new URL(`../v1/${path}${query.size ? `?${query}` : ""}`, document.baseURI);
  let answer, said;
  try {
    answer = await fetch(target, {
      headers: { Authorization: `Bearer ${key()}` },
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal,
    });
    said = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, answer ? "The answer is not one of Sidegate's." : "Sidegate does not answer.");
  }
  if (!answer.ok) throw new Refused(answer.status, said?.error?.message ?? `Sidegate answered ${answer.status}.`);
  return said;
}
