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
  threshold: () => element("input", "", { placeholder: "none", maxLength: 40 }),
  names: () => element("input", "", { maxLength: 300 }),
};
const HINTS = { threshold: " Such as absolute:10, mean:0.25, mass:0.9, or none.", names: " With commas between them." };

/** Put a control for each setting into a part of the page. */
export function listSettings(part, { settings }, changed) {
  const controls = settings.map((setting) => {
    const label = element("label", "", { className: "setting" });
    const control = CONTROLS[setting.kind](setting);
    control.name = setting.name;
    control.onchange = changed;
    label.append(element("b", setting.name.replaceAll("_", " ")), control, element("span", setting.help + (HINTS[setting.kind] ?? ""), { className: "hint" }));
    return label;
  });
  part.replaceChildren(...controls);
}

/** Let the controls show settings. */
export function showSettings({ settings }, values) {
  for (const { name, kind } of settings) {
    const control = document.querySelector(`#settings [name="${name}"]`);
    if (kind === "flag") control.checked = values[name];
    else control.value = (kind === "names" ? values[name].join(", ") : values[name]) ?? "";
  }
}

/** What the controls show that differs from a preset. */
export function readSettings(part, { settings }, preset) {
  const read = {
    choice: ({ value }) => value,
    flag: ({ checked }) => checked,
    number: ({ value }) => (value === "" ? null : Number(value)),
    threshold: ({ value }) => (["", "none"].includes(value.trim()) ? null : value.trim()),
    names: ({ value }) => value.split(",").map((name) => name.trim()).filter(Boolean),
  };
  const changed = {};
  for (const { name, kind } of settings) {
    const value = read[kind](part.querySelector(`[name="${name}"]`));
    if (JSON.stringify(value) !== JSON.stringify(preset[name])) changed[name] = value;
  }
  return changed;
}
