// Where the time of one request went: its phases one behind the other, and each call at a provider as it ran.

import { element, shape, table } from "./dom.js";
import { duration, text } from "./format.js";

// The order in which the pipeline runs; JSON of PostgreSQL keeps none. What is not known here comes last.
const PHASES = ["identify", "parse", "scan", "plan", "reserve", "intent", "dispatch", "relay"];

/** Return the chart, and the same as a table behind it. */
export function waterfall(trace) {
  const rows = [...phases(trace.phases ?? {}), ...attempts(trace.llmCalls)];
  if (!rows.length) return element("p", { class: "quiet" }, "No times were recorded.");
  const whole = Math.max(trace.totalDurationMs ?? 0, ...rows.map((row) => row.start + row.took), 0.001);
  const x = (ms) => (100 * ms) / whole;
  return [
    element("ul", { class: "waterfall", "aria-hidden": "true" }, rows.map((row) =>
      element("li", {},
        element("span", { class: "name" }, row.name),
        shape("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none" },
          shape("rect", { class: "rest", width: 100, height: 10 }),
          shape("rect", { class: row.tone, x: x(row.start), y: 1, height: 8, width: Math.max(0.3, x(row.took)) }),
          row.firstByte === null ? null
            : shape("line", { class: "mark", x1: x(row.start + row.firstByte), x2: x(row.start + row.firstByte), y1: 0, y2: 10 })),
        element("span", { class: "figure" }, duration(row.took))))),
    element("details", {}, element("summary", {}, "Show as a table"),
      table("Where the time went", [{ title: "Step" }, { title: "Began after", number: true }, { title: "Took", number: true },
        { title: "First byte after", number: true }],
      rows.map((row) => [row.name, duration(row.start), duration(row.took), duration(row.firstByte)]))),
  ];
}

function phases(found) {
  const order = (name) => (PHASES.includes(name) ? PHASES.indexOf(name) : PHASES.length);
  let start = 0;
  return Object.entries(found).sort(([a], [b]) => order(a) - order(b)).map(([name, took]) => {
    const row = { name, start, took, tone: "phase", firstByte: null };
    start += took;
    return row;
  });
}

function attempts(calls) {
  return calls.filter((call) => typeof call.startedMs === "number").map((call, index) => ({
    name: `Call ${index + 1}: ${text(call.model ?? call.responseModel)}`,
    start: call.startedMs,
    took: call.durationMs ?? 0,
    tone: call.status >= 200 && call.status < 400 && !call.error ? "attempt" : "attempt failed",
    firstByte: call.firstByteMs ?? null,
  }));
}
