// The range that the dashboard looks at, and its periods without gaps.

export const RANGES = [
  ["7", "7 days"],
  ["30", "30 days"],
  ["90", "90 days"],
  ["365", "12 months"],
];

/** Return the parameters of a question about the last `days` days. Long ranges are cut into weeks or months. */
export function range(days) {
  const start = new Date(Date.now() - (Number(days) - 1) * 86_400_000);
  return { startDate: start.toISOString().slice(0, 10), groupBy: days > 120 ? "month" : days > 31 ? "week" : "day" };
}

/**
 * Return the first days of all periods of a question, those without any request too. `points`: what was answered; a
 * project east of here may be one day ahead.
 */
export function periods({ startDate, groupBy }, points) {
  const today = new Date().toISOString().slice(0, 10);
  const last = points.reduce((latest, point) => (point.date > latest ? point.date : latest), today);
  const found = [];
  for (let at = first(new Date(startDate), groupBy); iso(at) <= last; at = next(at, groupBy)) found.push(iso(at));
  return found;
}

/** Put the points of an answer (`{date, ..}`) on the periods; `pick` reads the value of one. */
export function along(dates, points, pick) {
  const byDate = new Map(points.map((point) => [point.date, pick(point)]));
  return dates.map((date) => byDate.get(date) ?? 0);
}

const iso = (at) => at.toISOString().slice(0, 10);

function first(at, groupBy) {
  const found = new Date(at);
  if (groupBy === "week") found.setUTCDate(found.getUTCDate() - ((found.getUTCDay() + 6) % 7));
  if (groupBy === "month") found.setUTCDate(1);
  return found;
}

function next(at, groupBy) {
  if (groupBy === "month") return new Date(Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + 1, 1));
  return new Date(at.getTime() + (groupBy === "week" ? 7 : 1) * 86_400_000);
}
