// One trace: how it ended, where its time went, what was decided, found and paid.

import { get } from "./api.js";
import { element, table } from "./dom.js";
import { brief, count, dollars, duration, moment, text } from "./format.js";
import { nothing, panel } from "./panel.js";
import { badge } from "./requests.js";
import { waterfall } from "./waterfall.js";

/** Show the trace `id` in `main`. */
export async function trace(main, { id, signal }) {
  main.replaceChildren(element("h1", {}, "Trace"), element("p", { class: "quiet" }, "Loading …"));
  const found = await get(`traces/${encodeURIComponent(id)}`, {}, signal);
  const panels = [
    fixed("What happened", facts(found)),
    fixed("Where the time went", waterfall(found), true),
    fixed("Calls", calls(found.llmCalls), true),
    fixed("Decisions", decisions(found.routingDecisions)),
    fixed("Findings of the policy", findings(found.policy)),
    ...(found.toolCalls.length ? [fixed("Tool calls", tools(found.toolCalls))] : []),
    fixed("All of it", element("details", {}, element("summary", {}, "Show as JSON"),
      element("pre", { tabindex: "0" }, JSON.stringify(found, null, 2))), true),
  ];
  main.replaceChildren(element("h1", {}, "Trace ", element("code", {}, found.id)), element("div", { class: "panels" }, panels));
  for (const one of panels) one.reload();
}

function fixed(title, nodes, wide = false) {
  return panel(title, { wide, load: async () => nodes, draw: (same) => same });
}

function facts(found) {
  const pairs = [
    ["Outcome", badge(found.outcome)],
    ["Status", text(found.status)],
    ["Began", moment(found.createdAt)],
    ["Took", duration(found.totalDurationMs)],
    ["First byte", duration(found.firstByteMs)],
    ["Providers / Sidegate", `${duration(found.upstreamMs)} / ${duration(found.overheadMs)}`],
    ["User", text(found.userId)],
    ["Project", text(found.projectId)],
    ["Model", text(found.model)],
    ["Operation", `${text(found.operation)}${found.stream ? ", as a stream" : ""}`],
    ["Conversation", text(found.conversationRef)],
    ["Tokens", `${count(found.inputTokens)} in (${count(found.cachedInputTokens)} cached), ${count(found.outputTokens)} out`],
    ["Cost", `${dollars(found.totalCost)} (usage: ${text(found.usageSource)})`],
  ];
  if (found.errorInfo) pairs.push(["Error", `${text(found.errorInfo.code)}: ${text(found.errorInfo.message)}`]);
  return element("dl", { class: "facts" }, pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function calls(entries) {
  if (!entries.length) return nothing("No provider was asked.");
  return table("Calls", [{ title: "Call" }, { title: "Provider" }, { title: "Model" }, { title: "Layer" }, { title: "Why" },
    { title: "Status", number: true }, { title: "In", number: true }, { title: "Out", number: true },
    { title: "Took", number: true }, { title: "Cost", number: true }],
  entries.map((call, index) => [String(index + 1), text(call.upstream), text(call.model ?? call.responseModel),
    text(call.layer), text(call.why), text(call.status), brief(call.inputTokens), brief(call.outputTokens),
    duration(call.durationMs), dollars(call.cost)]));
}

function decisions(entries) {
  if (!entries?.length) return nothing("None was recorded.");
  return entries.map((entry) => {
    const { candidates = [], rejected = [], ...rest } = entry;
    return element("div", { class: "decision" },
      element("dl", { class: "facts" }, Object.entries(rest).flatMap(([name, value]) =>
        [element("dt", {}, name), element("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))])),
      candidates.length ? element("ol", {}, candidates.map((one) => element("li", {}, place(one)))) : null,
      rejected.length ? element("ul", { class: "passed" }, rejected.map((one) =>
        element("li", {}, `Not ${place(one)}: ${text(one.why)}`))) : null);
  });
}

function place(one) {
  const bound = one.maxCost === undefined ? "" : `, at most ${dollars(Number(one.maxCost))}`;
  return `${text(one.upstream)} / ${text(one.model)}${one.layer ? ` (${one.layer})` : ""}${bound}`;
}

function findings(policy) {
  if (!policy) return nothing("The policy was not asked.");
  const found = policy.findings ?? [];
  const missed = policy.unscanned ?? [];
  const looked = Object.entries(policy.scanned ?? {}).map(([side, number]) => `${count(number)} characters of the ${side}`);
  return [
    element("p", { class: "quiet" }, `Looked at ${looked.join(" and ") || "nothing"}; policy ${text(policy.version)}.`),
    found.length ? table("Findings", [{ title: "Rule" }, { title: "Action" }, { title: "Severity" }, { title: "Where" }],
      found.map((one) => [text(one.rule), text(one.action), text(one.severity), `${text(one.direction)}: ${text(one.place)}`]))
      : nothing("Nothing was found."),
    missed.length ? table("Not scanned", [{ title: "Where" }, { title: "Why" }],
      missed.map((one) => [`${text(one.direction)}: ${text(one.place)}`, text(one.reason)])) : null,
  ].filter(Boolean);
}

function tools(entries) {
  return table("Tool calls", [{ title: "Tool" }, { title: "Kind" }, { title: "Bytes", number: true }, { title: "Call" }],
    entries.map((one) => [text(one.name), text(one.kind), count(one.bytes), one.llmCall === null ? "–" : String(one.llmCall + 1)]));
}
