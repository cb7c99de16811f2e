// The dashboard: who is signed in, which view is shown, and for which project and range.
//
// The address says which view (`#/`, `#/requests`, `#/trace/<id>`). Each view gets a signal that is aborted when
// another one takes its place, so nothing that is late can draw over it.

import { get } from "./api.js";
import { element, say, select } from "./dom.js";
import { overview } from "./overview.js";
import { RANGES, range } from "./periods.js";
import { requests } from "./requests.js";
import { forget, key } from "./session.js";
import { signIn } from "./signin.js";
import { trace } from "./trace.js";

const main = document.getElementById("main");
const shell = { views: document.getElementById("views"), scope: document.getElementById("scope"), who: document.getElementById("who") };
const state = { who: null, projectId: "", days: "30" };
let view = new AbortController();

const VIEWS = [
  [/^#\/requests$/, "Requests", (context) => requests(main, context)],
  [/^#\/trace\/([0-9a-f-]{36})$/, "Trace", (context, id) => trace(main, { ...context, id })],
  [/^/, "Overview", (context) => overview(main, context)],
];

/** Show the view that the address names. `moved`: the user went there, so focus follows. */
async function show(moved) {
  view.abort();
  view = new AbortController();
  const [pattern, title, open] = VIEWS.find(([wanted]) => wanted.test(location.hash));
  document.title = `${title} – Sidegate`;
  for (const link of shell.views.querySelectorAll("a"))
    if (link.textContent === title) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  if (moved) main.focus();
  const question = { projectId: state.projectId, ...range(state.days) };
  try {
    await open({ who: state.who, question, signal: view.signal }, location.hash.match(pattern)[1]);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) return signOut(error.message);
    if (error.status === undefined) throw error;
    main.replaceChildren(element("h1", {}, title), element("p", { class: "notice", role: "alert" }, error.message));
  }
}

async function enter(who) {
  state.who = who;
  state.projectId = who.projectId ?? "";
  for (const part of Object.values(shell)) part.hidden = false;
  shell.who.replaceChildren(who.userId === null ? "operator " : `${who.userId}, ${who.role ?? "no role"} `,
    element("button", { type: "button", click: () => signOut("") }, "Sign out"));
  const changed = (name) => (value) => {
    state[name] = value;
    show(false);
  };
  shell.scope.replaceChildren(...(await projects(changed("projectId"))), select("Range", RANGES, state.days, changed("days")));
  say("Signed in.");
  show(false);
}

/** Return the choice of projects for one who may see all of them. */
async function projects(chosen) {
  if (state.who.projectId !== null) return [element("p", { class: "field" }, element("span", {}, "Project"), state.who.projectId)];
  const found = await get("analytics/projects", { ...range(365), groupBy: "", limit: 500 }).catch(() => ({ projects: [] }));
  const names = found.projects.map((one) => [one.projectId, one.projectId || "(none)"]).filter(([name]) => name);
  return [select("Project", [["", "All projects"], ...names], "", chosen)];
}

function signOut(reason) {
  view.abort();
  forget();
  for (const part of Object.values(shell)) part.hidden = true;
  document.title = "Sidegate";
  signIn(main, enter, reason);
}

async function begin() {
  if (key() === null) return signOut("");
  try {
    await enter(await get("sidegate/whoami"));
  } catch (error) {
    signOut(error.message);
  }
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  main.focus();
});
addEventListener("hashchange", () => state.who && key() && show(true));
begin();
