// Who spent most: users, projects, and single requests.

import { get } from "./api.js";
import { element, table } from "./dom.js";
import { brief, count, dollars, duration, moment, percent, text } from "./format.js";
import { nothing, panel } from "./panel.js";
import { withoutGroups } from "./spend.js";

const SHARES = ["Requests", "Failed", "Tokens", "Spend"].map((title) => ({ title, number: true }));

/** The users of the range. */
export const usersPanel = (context) => shares(context, "Users", "users", "userId");

/** The projects of the range. */
export const projectsPanel = (context) => shares(context, "Projects", "projects", "projectId");

function shares({ question, signal }, title, noun, member) {
  return panel(title, {
    load: () => get(`analytics/${noun}`, { ...withoutGroups(question), limit: 10 }, signal),
    draw: (answer) => answer[noun].length
      ? table(title, [{ title: title.slice(0, -1) }, ...SHARES], answer[noun].map((one) => [
        text(one[member]), count(one.requests), percent(one.requests ? one.errors / one.requests : 0),
        brief(one.tokens.total), dollars(one.cost)]))
      : nothing("Nobody sent a request in this range."),
  });
}

/** The dearest requests, each with a link to its trace. */
export function expensivePanel({ question, signal }) {
  return panel("Dearest requests", {
    wide: true,
    load: () => get("analytics/top-expensive", { ...withoutGroups(question), limit: 10 }, signal),
    draw: ({ requests }) => requests.length
      ? table("Dearest requests",
        [{ title: "Request" }, { title: "User" }, { title: "Model" }, { title: "Outcome" }, { title: "Calls", number: true },
          { title: "Tokens", number: true }, { title: "Took", number: true }, { title: "Cost", number: true }],
        requests.map((one) => [
          element("a", { href: `#/trace/${one.traceId}` }, moment(one.createdAt)), text(one.userId), text(one.model),
          text(one.outcome), count(one.calls), brief(one.tokens.total), duration(one.durationMs), dollars(one.cost)]))
      : nothing("No request of this range cost anything."),
  });
}
