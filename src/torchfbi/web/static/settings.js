// Every setting as a control, made from what the server says about it.

import { element } from "./parts.js";

const CONTROLS = {
  choice: ({ choices }) => {
    const control = element("select");
    control.append(...choices.map((choice) => element("option", choice)));
    return control;
  },
  flag: () => element("input", "", { type: "checkbox" }),
  number: () => element("input", "", { type: "number", step: "any", placeholder: "none" }),
};

/** Put a control for each setting into a part of the page. */
export function listSettings(part, { settings }, changed) {
  const controls = settings.map((setting) => {
    const label = element("label", "", { className: "setting" });
    const control = CONTROLS[setting.kind](setting);
    control.name = setting.name;
    control.onchange = changed;
    label.append(element("b", setting.name.replaceAll("_", " ")), control, element("span", setting.help, { className: "hint" }));
    return label;
  });
  part.replaceChildren(...controls);
}

/** Let the controls show settings. */
export function showSettings({ settings }, values) {
  for (const { name, kind } of settings) {
    const control = document.querySelector(`#settings [name="${name}"]`);
    if (control === document.activeElement) continue; // somebody is writing there
    if (kind === "flag") control.checked = values[name];
    else control.value = values[name] ?? "";
  }
}

/** What the controls show that differs from a preset. */
export function readSettings(part, { settings }, preset) {
  const read = {
    choice: ({ value }) => value,
    flag: ({ checked }) => checked,
    number: ({ value }) => (value === "" ? null : Number(value)),
  };
  const changed = {};
  for (const { name, kind } of settings) {
    const value = read[kind](part.querySelector(`[name="${name}"]`));
    if (value !== preset[name]) changed[name] = value;
  }
  return changed;
}
