// Elements of the page. Every text goes in as a text node: a name that a client chose can never become markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Return a new element. `attributes`: a function is a listener (`click: f`), `null`, `undefined` and `false` leave the
 * attribute out, `true` sets it empty. `children`: nodes, texts, numbers, or lists of them; `null` and `undefined` are
 * left out.
 */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Return a new element of SVG; the same rules. */
export function shape(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Return a table. `columns`: `{title, number}`; `rows`: lists of texts or nodes, the first names the row. */
export function table(caption, columns, rows) {
  const kind = (index) => (columns[index].number ? "number" : null);
  return element(
    "div",
    { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    element(
      "table",
      {},
      element("caption", { class: "unseen" }, caption),
      element("thead", {}, element("tr", {}, columns.map((column, index) =>
        element("th", { scope: "col", class: kind(index) }, column.title)))),
      element("tbody", {}, rows.map((row) => element("tr", {}, row.map((cell, index) =>
        index === 0
          ? element("th", { scope: "row", class: kind(index) }, cell)
          : element("td", { class: kind(index) }, cell))))),
    ),
  );
}

/** Return a labelled choice of one of `options` (`[value, text]`); `chosen` is called with the new value. */
export function select(label, options, value, chosen) {
  const list = element("select", { change: () => chosen(list.value) }, options.map(([name, text]) =>
    element("option", { value: name, selected: name === value }, text)));
  return element("label", { class: "field" }, element("span", {}, label), list);
}

/** Return a group of radio buttons that look like one switch. */
export function choice(legend, options, value, chosen) {
  const group = `choice-${(choices += 1)}`;
  return element("fieldset", { class: "choice" }, element("legend", { class: "unseen" }, legend),
    options.map(([name, text]) => element("label", {},
      element("input", { type: "radio", name: group, value: name, checked: name === value, change: () => chosen(name) }),
      element("span", {}, text))));
}

let choices = 0;

/** Say something to users of screen readers, without moving their focus. */
export function say(text) {
  document.getElementById("said").textContent = text;
}
