// What the policy found, by rule and by what was done about it.

import { get } from "./api.js";
import { table } from "./dom.js";
import { count, text } from "./format.js";
import { nothing, panel } from "./panel.js";
import { withoutGroups } from "./spend.js";

/** Findings of the range, the most frequent first. */
export function policyPanel({ question, signal }) {
  return panel("Findings of the policy", {
    load: () => get("analytics/policy", { ...withoutGroups(question), limit: 10 }, signal),
    draw: ({ findings }) => findings.length
      ? table("Findings of the policy",
        [{ title: "Rule" }, { title: "Category" }, { title: "Action" }, { title: "In" }, { title: "Found", number: true },
          { title: "Requests", number: true }],
        findings.map((one) => [one.rule || "(beyond what a trace keeps)", text(one.category), text(one.action), text(one.direction), count(one.findings), count(one.requests)]))
      : nothing("Nothing was found in this range."),
  });
}
