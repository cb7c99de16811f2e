// Stacked bars over time, drawn by hand in SVG; the same figures stand in a table behind them.
//
// A chart is drawn for the width that it has, so that its letters stay readable on a phone. It can be entered with the
// keyboard: the arrow keys go from period to period, and what stands there is shown and spoken.

import { element, shape, table } from "./dom.js";
import { day } from "./format.js";

const HEIGHT = 220;
const EDGE = { top: 10, right: 8, bottom: 26, left: 56 };
const COLOURS = 8;

const colour = (index, one) => `tone-${one.tone ?? index % COLOURS}`;

/**
 * Return a figure. `dates`: first days of the periods, in order. `series`: `{name, values, tone}`, one value per date,
 * the largest first; `tone` is the class of its colour where the order does not choose it. `format`: value to text.
 */
export function stackedChart({ title, dates, series, format }) {
  const totals = dates.map((_, at) => series.reduce((sum, one) => sum + one.values[at], 0));
  const readout = element("output", { class: "readout" });
  const stage = element("div", { class: "stage" });
  let chosen = -1;

  const choose = (at) => {
    chosen = Math.max(0, Math.min(dates.length - 1, at));
    const parts = series.map((one) => [one.name, one.values[chosen]]).filter(([, value]) => value > 0);
    const detail = parts.length > 1 ? `: ${parts.map(([name, value]) => `${name} ${format(value)}`).join(", ")}` : "";
    readout.textContent = `${day(dates[chosen])} – ${format(totals[chosen])}${detail}`;
    for (const [index, column] of [...stage.querySelectorAll(".column")].entries())
      column.classList.toggle("chosen", index === chosen);
  };
  const step = (event) => {
    const moves = { ArrowRight: chosen + 1, ArrowLeft: chosen - 1, Home: 0, End: dates.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(moves[event.key]);
  };
  const draw = (width) => {
    const drawing = bars(width, dates, series, totals, format);
    drawing.addEventListener("pointermove", (event) => {
      const at = drawing.columnAt(event.clientX - drawing.getBoundingClientRect().left);
      if (at !== chosen) choose(at);
    });
    stage.replaceChildren(drawing);
  };
  new ResizeObserver(([entry]) => draw(Math.max(260, Math.floor(entry.contentRect.width)))).observe(stage);
  draw(640);
  const label = `${title}: ${dates.length} periods. Arrow keys go from one to the next.`;
  const group = element("div", { class: "plot", tabindex: "0", role: "group", "aria-label": label, keydown: step }, stage);
  return element("figure", { class: "chart" },
    series.length > 1 ? legend(series) : null, group, readout,
    element("details", {}, element("summary", {}, "Show as a table"), behind(title, dates, series, totals, format)));
}

function bars(width, dates, series, totals, format) {
  const top = ceiling(Math.max(...totals, 0));
  const room = { width: width - EDGE.left - EDGE.right, height: HEIGHT - EDGE.top - EDGE.bottom };
  const step = room.width / dates.length;
  const y = (value) => EDGE.top + room.height * (1 - value / top);
  const drawing = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, "aria-hidden": "true" });
  for (let line = 0; line <= 4; line += 1) {
    const value = (top * line) / 4;
    drawing.append(
      shape("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }),
      shape("text", { class: "tick", x: EDGE.left - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)));
  }
  const every = Math.max(1, Math.ceil(62 / step));
  for (const [at, date] of dates.entries()) {
    const column = shape("g", { class: "column" },
      shape("rect", { class: "hit", x: EDGE.left + at * step, y: EDGE.top, width: step, height: room.height }));
    let base = 0;
    for (const [index, one] of series.entries()) {
      const value = one.values[at];
      if (value > 0)
        column.append(shape("rect", {
          class: colour(index, one),
          x: EDGE.left + at * step + step * 0.12,
          width: Math.max(1, step * 0.76),
          y: y(base + value),
          height: Math.max(0.5, y(base) - y(base + value)),
        }));
      base += value;
    }
    drawing.append(column);
    if (at % every === 0)
      drawing.append(shape("text", { class: "tick", x: EDGE.left + (at + 0.5) * step, y: HEIGHT - 8, "text-anchor": "middle" },
        day(date)));
  }
  drawing.columnAt = (x) => Math.floor((x - EDGE.left) / step);
  return drawing;
}

/** Return a round number that is at least `value`, and whose quarters are round too. */
export function ceiling(value) {
  if (value <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10].find((factor) => factor * unit >= value * 0.999999) * unit;
}

function legend(series) {
  return element("ul", { class: "legend" }, series.map((one, index) =>
    element("li", {}, element("span", { class: `swatch ${colour(index, one)}` }), one.name)));
}

function behind(title, dates, series, totals, format) {
  const columns = [{ title: "Period" }, ...series.map((one) => ({ title: one.name, number: true }))];
  if (series.length > 1) columns.push({ title: "Total", number: true });
  const rows = dates.map((date, at) => [
    date,
    ...series.map((one) => format(one.values[at])),
    ...(series.length > 1 ? [format(totals[at])] : []),
  ]);
  return table(title, columns, rows);
}
