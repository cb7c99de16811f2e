// The latest requests, followed live while the page is seen.

import { get } from "./api.js";
import { element, say, select, table } from "./dom.js";
import { brief, clock, dollars, duration, text } from "./format.js";
import { panel } from "./panel.js";

const EVERY_MS = 3000;
const SHOWN = 50;
const OUTCOMES = ["ok", "rejected", "upstream_error", "upstream_failed", "timeout", "quota_cut", "policy_cut", "truncated",
  "client_abort", "drain_abort", "overload_abort", "internal_error", "interrupted"];

/** Show the list in `main`. `context`: `{question, signal}`; the signal ends the following. */
export function requests(main, { question, signal }) {
  const filters = { outcome: "", userId: "", model: "" };
  let follows = true;
  let newest = "";
  const section = panel("Latest requests", {
    wide: true,
    load: () => get("traces", { projectId: question.projectId, limit: SHOWN, ...filters }, signal),
    draw: ({ traces }) => {
      const fresh = newest ? traces.filter((trace) => trace.id > newest).length : 0;
      newest = traces[0]?.id ?? newest;
      if (fresh) say(`${fresh} new requests`);
      if (!traces.length) return element("p", { class: "quiet" }, "No such request yet.");
      return table("Latest requests",
        [{ title: "Began" }, { title: "Outcome" }, { title: "Status", number: true }, { title: "User" }, { title: "Model" },
          { title: "In", number: true }, { title: "Out", number: true }, { title: "Took", number: true },
          { title: "Cost", number: true }],
        traces.map((trace) => [
          element("a", { href: `#/trace/${trace.id}` }, clock(trace.createdAt)), badge(trace.outcome), text(trace.status),
          text(trace.userId), text(trace.model), brief(trace.inputTokens), brief(trace.outputTokens),
          duration(trace.totalDurationMs), dollars(trace.totalCost)]));
    },
  });
  const narrowed = (name) => (value) => {
    filters[name] = value;
    newest = "";
    section.reload();
  };
  const pause = element("button", { type: "button", "aria-pressed": "false", click: () => {
    follows = !follows;
    pause.setAttribute("aria-pressed", String(!follows));
  } }, "Pause");
  main.replaceChildren(
    element("h1", {}, "Requests"),
    element("div", { class: "filters", role: "search" },
      select("Outcome", [["", "All"], ...OUTCOMES.map((name) => [name, name])], "", narrowed("outcome")),
      typed("User", narrowed("userId")), typed("Model", narrowed("model")), pause),
    element("div", { class: "panels" }, section));
  section.reload();
  const timer = setInterval(() => {
    if (follows && document.visibilityState === "visible" && section.getAttribute("aria-busy") === "false"
      && !section.contains(document.activeElement)) section.reload();
  }, EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

/** An outcome as a coloured word. */
export function badge(outcome) {
  const tone = outcome === "ok" ? "good" : outcome === "client_abort" ? "plain" : "bad";
  return element("span", { class: `badge ${tone}` }, text(outcome));
}

function typed(label, chosen) {
  const input = element("input", { type: "search", autocomplete: "off", spellcheck: "false", change: () => chosen(input.value) });
  return element("label", { class: "field" }, element("span", {}, label), input);
}
