// The providers and their credentials, as routing sees them now.

import { get } from "./api.js";
import { element, table } from "./dom.js";
import { text } from "./format.js";
import { nothing, panel } from "./panel.js";

/** One row per credential. */
export function upstreamsPanel({ signal }) {
  return panel("Providers", {
    load: () => get("sidegate/upstreams", {}, signal),
    draw: ({ upstreams }) => upstreams.length
      ? table("Providers", [{ title: "Provider" }, { title: "Credential" }, { title: "State" }],
        upstreams.map((one) => [one.upstream, text(one.credential),
          element("span", { class: one.state === "closed" ? "badge good" : "badge bad" }, one.state)]))
      : nothing("No provider is configured."),
  });
}
