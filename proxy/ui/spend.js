// Totals of the range, and spend, tokens and requests over time by model and layer.

import { get } from "./api.js";
import { stackedChart } from "./chart.js";
import { choice, element } from "./dom.js";
import { brief, count, dollars, duration, percent } from "./format.js";
import { nothing, panel } from "./panel.js";
import { along, periods } from "./periods.js";

const MEASURES = {
  cost: ["Spend", (point) => point.cost, dollars],
  tokens: ["Tokens", (point) => point.tokens.total, brief],
  requests: ["Requests", (point) => point.requests, brief],
};

/** The figures at the head of the page. */
export function totalsPanel({ question, signal }) {
  return panel("Totals", {
    wide: true,
    load: () => Promise.all(["", "/error-rate", "/latency"].map((path) =>
      get(`analytics${path}`, path === "/latency" ? withoutGroups(question) : question, signal))),
    draw: ([usage, errors, latency]) =>
      element("dl", { class: "totals" }, [
        ["Requests", count(usage.totalRequests), null],
        ["Spend", dollars(usage.totalCost), null],
        ["Tokens", brief(usage.totalTokens.total),
          `${brief(usage.totalTokens.input)} in, ${brief(usage.totalTokens.output)} out`],
        ["Failed requests", percent(errors.errorRate), `${count(errors.errors)} of them, ${count(errors.rejected)} refused`],
        ["95 % took at most", duration(latency.durationMs.p95), `half: ${duration(latency.durationMs.p50)}`],
        ["First byte, 95 %", duration(latency.firstByteMs.p95), `half: ${duration(latency.firstByteMs.p50)}`],
      ].map(([name, value, note]) =>
        element("div", {}, element("dt", {}, name), element("dd", {}, value), note ? element("dd", { class: "note" }, note) : null))),
  });
}

/** The chart over time, with a switch for what is measured and one for how it is split. */
export function spendPanel({ question, signal }) {
  let measure = "cost";
  let by = "model";
  const changed = (set) => (value) => {
    set(value);
    section.reload();
  };
  const section = panel("Over time", {
    wide: true,
    tools: [
      choice("Measure", Object.entries(MEASURES).map(([name, [text]]) => [name, text]), measure, changed((value) => (measure = value))),
      choice("Split by", [["model", "By model"], ["layer", "By layer"]], by, changed((value) => (by = value))),
    ],
    load: () => get("analytics/series", { ...question, by, limit: 7 }, signal),
    draw: (answer) => {
      const [title, pick, format] = MEASURES[measure];
      if (!answer.series.length) return nothing("No calls in this range.");
      const dates = periods(question, answer.series.flatMap((one) => one.points));
      const series = answer.series.map((one) => ({ name: one.name, values: along(dates, one.points, pick) }));
      if (answer.other.length) series.push({ name: "other", tone: "other", values: along(dates, answer.other, pick) });
      return stackedChart({ title: `${title} by ${by}`, dates, series, format });
    },
  });
  return section;
}

/** Return the parameters of a question that takes no groups. */
export function withoutGroups({ groupBy, ...rest }) {
  return rest;
}
