// Who has used most of a daily limit.

import { get } from "./api.js";
import { table } from "./dom.js";
import { brief, dollars, moment, percent } from "./format.js";
import { meter } from "./meter.js";
import { nothing, panel } from "./panel.js";

/** Bars of tokens and money, the fullest first. */
export function quotaPanel({ question, signal }) {
  return panel("Daily quotas", {
    wide: true,
    load: () => get("quota/top", { projectId: question.projectId, limit: 10 }, signal),
    draw: ({ quotas }) => quotas.length
      ? table("Daily quotas", [{ title: "User" }, { title: "Project" }, { title: "Money" }, { title: "Tokens" }, { title: "Begins anew" }],
        quotas.map((one) => [
          one.userId,
          one.projectId,
          bar(one.currentCostToday, one.maxCostDaily, dollars),
          bar(one.currentTokensToday, one.maxTokensDaily, brief),
          moment(one.resetAt),
        ]))
      : nothing("Nobody has a quota yet."),
  });
}

function bar(used, limit, format) {
  const part = limit > 0 ? used / limit : used > 0 ? 1 : 0;
  return meter(part, `${percent(part)} used`, `${format(used)} of ${format(limit)}`);
}
