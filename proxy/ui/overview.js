// The overview: what was spent, by whom and on what, how often it failed and how long it took.
//
// `PANELS` is the whole page: each row makes one panel and names the permission that it needs. Panels load on their own.

import { errorPanels } from "./errors.js";
import { element } from "./dom.js";
import { latencyPanel } from "./latency.js";
import { policyPanel } from "./policy.js";
import { quotaPanel } from "./quotas.js";
import { spendPanel, totalsPanel } from "./spend.js";
import { expensivePanel, projectsPanel, usersPanel } from "./spenders.js";
import { upstreamsPanel } from "./upstreams.js";

const PANELS = [
  ["analytics:read", totalsPanel],
  ["analytics:read", spendPanel],
  ["quota:read", quotaPanel],
  ["analytics:read", errorPanels],
  ["analytics:read", latencyPanel],
  ["analytics:read", policyPanel],
  ["analytics:read", usersPanel],
  ["projects:write", projectsPanel],
  ["traces:read", expensivePanel],
  ["upstreams:read", upstreamsPanel],
];

/** Show the overview in `main`. `context`: `{who, question, signal}`. */
export function overview(main, context) {
  const panels = PANELS.filter(([permission]) => context.who.permissions.includes(permission)).flatMap(([, make]) =>
    make(context));
  main.replaceChildren(
    element("h1", {}, "Overview"),
    panels.length ? element("div", { class: "panels" }, panels)
      : element("p", { class: "notice" }, "Your key has no role here that may see anything. Ask an admin of the project."),
  );
  for (const panel of panels) panel.reload();
}
