// Signing in: a key is asked for, tried, and kept in this tab only.

import { get } from "./api.js";
import { element } from "./dom.js";
import { forget, keep } from "./session.js";

/** Ask for a key in `main`; `done` gets what the API says of its holder. `reason`: why it is asked again. */
export function signIn(main, done, reason = "") {
  const complaint = element("p", { class: "notice", role: "alert", id: "complaint" }, reason);
  const input = element("input", { type: "password", id: "key", autocomplete: "off", spellcheck: "false", required: true,
    "aria-describedby": "about complaint" });
  const submit = async (event) => {
    event.preventDefault();
    const value = input.value.trim();
    // A header can hold only such letters; anything else is no key.
    if (!/^[\x21-\x7e]+$/.test(value)) return void (complaint.textContent = "This cannot be a key.");
    keep(value);
    try {
      done(await get("sidegate/whoami"));
    } catch (error) {
      forget();
      complaint.textContent = error.message;
      input.select();
    }
  };
  main.replaceChildren(element("form", { class: "signin", submit },
    element("h1", {}, "Sign in"),
    element("label", { for: "key" }, "Key"),
    input,
    element("p", { class: "quiet", id: "about" },
      "The admin key, or a key of your own. It stays in this tab until you close it or sign out, and goes nowhere but to "
      + "this Sidegate."),
    complaint,
    element("button", { type: "submit" }, "Sign in")));
  input.focus();
}
