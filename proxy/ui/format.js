// Numbers, money and times as people read them, in the browser's language. What is not known is a dash.

const NONE = "–";
const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

/** A whole number with all its digits. */
export const count = (value) => (known(value) ? whole.format(value) : NONE);

/** A large number in three or four signs, such as 1.2M. */
export const brief = (value) => (known(value) ? short.format(value) : NONE);

/** Dollars: two digits from one on, four for less, and for very little as many as are needed to see it. */
export function dollars(value) {
  if (!known(value)) return NONE;
  const digits = value === 0 || value >= 1 ? 2 : value >= 0.001 ? 4 : Math.min(9, 1 - Math.floor(Math.log10(value)));
  return `$${value.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: digits })}`;
}

/** A part of one as percent. */
export function percent(value) {
  if (!known(value)) return NONE;
  return `${(value * 100).toLocaleString(undefined, { maximumFractionDigits: value < 0.01 ? 2 : 1 })} %`;
}

/** Milliseconds. */
export function duration(ms) {
  if (!known(ms)) return NONE;
  if (ms < 10) return `${ms.toLocaleString(undefined, { maximumFractionDigits: 2 })} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${(ms / 1000).toLocaleString(undefined, { maximumFractionDigits: ms < 10_000 ? 2 : 1 })} s`;
  return `${Math.round(ms / 60_000)} min`;
}

/** A calendar day `2026-11-01` as a short date. */
export const day = (text) =>
  new Date(`${text}T00:00:00Z`).toLocaleDateString(undefined, { day: "numeric", month: "short", timeZone: "UTC" });

/** A moment on this machine's clock. */
export const moment = (text) => (text ? new Date(text).toLocaleString() : NONE);

/** The time of day of a moment of today, of another day with its date. */
export function clock(text) {
  if (!text) return NONE;
  const at = new Date(text);
  return at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString() : at.toLocaleString();
}

/** A text, or a dash. */
export const text = (value) => (value === null || value === undefined || value === "" ? NONE : String(value));

function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}
