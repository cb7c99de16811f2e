// A bar that is filled in part, with the figure beside it. It turns from calm to warning to full at two bounds.

import { element, shape } from "./dom.js";

/** `part`: 0 to 1, more is shown as full. `bounds`: from where on it warns, and alarms. */
export function meter(part, label, figure, bounds = [0.8, 1]) {
  const filled = Math.max(0, Math.min(1, part));
  const state = part >= bounds[1] ? "full" : part >= bounds[0] ? "near" : "calm";
  return element("span", { class: "meter" },
    shape("svg", { class: `bar ${state}`, viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img", "aria-label": label },
      shape("rect", { class: "rest", width: 100, height: 8, rx: 1 }),
      shape("rect", { class: "part", width: filled * 100, height: 8, rx: 1 })),
    element("span", { class: "figure" }, figure));
}
