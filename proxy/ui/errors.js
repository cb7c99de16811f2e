// How often requests failed over time, and the calls of each model.

import { get } from "./api.js";
import { stackedChart } from "./chart.js";
import { meter } from "./meter.js";
import { count, percent } from "./format.js";
import { nothing, panel } from "./panel.js";
import { along, periods } from "./periods.js";
import { table } from "./dom.js";

/** Two panels that share no answer, so that one can be read while the other loads. */
export function errorPanels({ question, signal }) {
  const load = () => get("analytics/error-rate", question, signal);
  return [
    panel("Failed requests", {
      load,
      draw: (answer) => {
        if (!answer.totalRequests) return nothing("No requests in this range.");
        const dates = periods(question, answer.byDay);
        const values = along(dates, answer.byDay, (point) => point.errorRate);
        return stackedChart({ title: "Failed requests", dates, series: [{ name: "failed", tone: "6", values }], format: percent });
      },
    }),
    panel("Failed calls by model", {
      load,
      draw: (answer) => {
        const rows = Object.entries(answer.byModel).sort(([, a], [, b]) => b.errors - a.errors).slice(0, 12);
        if (!rows.length) return nothing("No calls in this range.");
        return table("Failed calls by model",
          [{ title: "Model" }, { title: "Calls", number: true }, { title: "Failed", number: true }, { title: "Rate" }],
          rows.map(([model, one]) => [model, count(one.calls), count(one.errors),
            meter(one.errorRate, `${percent(one.errorRate)} of the calls of ${model}`, percent(one.errorRate), [0.02, 0.1])]));
      },
    }),
  ];
}
