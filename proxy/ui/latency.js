// How long things took: for each model a line from the half to the 99th percentile, on one logarithmic scale.

import { get } from "./api.js";
import { choice, element, shape, table } from "./dom.js";
import { duration } from "./format.js";
import { nothing, panel } from "./panel.js";
import { withoutGroups } from "./spend.js";

const MOST = 10;
const MEASURES = [["durationMs", "Whole answer"], ["firstByteMs", "First byte"]];

/** Percentiles of calls by model, and of requests. */
export function latencyPanel({ question, signal }) {
  let measure = "durationMs";
  const section = panel("Latency", {
    tools: [choice("Measure", MEASURES, measure, (value) => {
      measure = value;
      section.reload();
    })],
    load: () => get("analytics/latency", withoutGroups(question), signal),
    draw: (answer) => {
      const all = [["All requests", answer[measure]], ...Object.entries(answer.byModel).map(([name, one]) => [name, one[measure]])];
      const rows = all.filter(([, one]) => one.count > 0).slice(0, MOST);
      if (!rows.length) return nothing("Nothing was measured in this range.");
      return [lines(rows), element("details", {}, element("summary", {}, "Show as a table"), behind(rows))];
    },
  });
  return section;
}

function lines(rows) {
  const low = Math.log(Math.min(...rows.map(([, one]) => one.p50)));
  const high = Math.log(Math.max(...rows.map(([, one]) => one.p99)));
  const x = (ms) => 2 + (96 * (Math.log(ms) - low)) / Math.max(high - low, 0.1);
  return element("ul", { class: "spans" }, rows.map(([name, one]) =>
    element("li", {},
      element("span", { class: "name" }, name),
      shape("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
        shape("line", { class: "track", x1: 0, x2: 100, y1: 5, y2: 5 }),
        shape("line", { class: "reach", x1: x(one.p50), x2: x(one.p99), y1: 5, y2: 5 }),
        shape("line", { class: "mark", x1: x(one.p50), x2: x(one.p50), y1: 1, y2: 9 }),
        shape("line", { class: "mark", x1: x(one.p95), x2: x(one.p95), y1: 1, y2: 9 })),
      element("span", { class: "figure" }, `half ${duration(one.p50)}, 95 % ${duration(one.p95)}, 99 % ${duration(one.p99)}`))));
}

function behind(rows) {
  const columns = ["Count", "50 %", "95 %", "99 %"].map((title) => ({ title, number: true }));
  return table("Latency", [{ title: "Model" }, ...columns],
    rows.map(([name, one]) => [name, String(one.count), ...[one.p50, one.p95, one.p99].map(duration)]));
}
