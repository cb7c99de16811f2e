// A panel: one titled region that loads on its own, so that a slow or refused answer leaves the others alone.

import { Refused } from "./api.js";
import { element } from "./dom.js";

/**
 * Return a section. `load`: async, returns what `draw` makes into nodes. `tools`: nodes beside the title.
 * `section.reload()` loads again and resolves when it is shown.
 */
export function panel(title, { load, draw, tools = [], wide = false }) {
  const id = `panel-${(panels += 1)}`;
  const body = element("div", { class: "body" });
  const section = element("section", { class: wide ? "panel wide" : "panel", "aria-labelledby": id },
    element("div", { class: "head" }, element("h2", { id }, title), tools), body);
  section.reload = async () => {
    section.setAttribute("aria-busy", "true");
    if (!body.hasChildNodes()) body.append(element("p", { class: "quiet" }, "Loading …"));
    try {
      body.replaceChildren(...[draw(await load())].flat().filter(Boolean));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Refused)) throw error;
      body.replaceChildren(element("p", { class: "notice", role: "alert" }, error.message));
    } finally {
      section.setAttribute("aria-busy", "false");
    }
  };
  return section;
}

let panels = 0;

/** What stands in a panel that has nothing to show. */
export const nothing = (text) => element("p", { class: "quiet" }, text);
