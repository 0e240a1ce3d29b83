// What the exported page and that of `torchfbi serve` have in common.

export const $ = (id) => document.getElementById(id);

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;

/** An element with its text, and whatever else is said of it. */
export function element(tag, text = "", properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text, ...properties });
}

/** Fill a list with a button for each [number, name, probability]; the focus stays on its class. */
export function listClasses(list, rows, choose) {
  const items = rows.map(([number, name, probability]) => {
    const button = element("button", "", { type: "button" });
    button.dataset.class = number;
    const bar = element("progress", "", { value: probability, ariaHidden: "true" });
    const share = element("span", percent(probability), { className: "share" });
    button.append(bar, element("span", name, { className: "name" }), share);
    button.onclick = () => choose(number);
    const item = element("li");
    item.append(button);
    return item;
  });
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.class : null;
  list.replaceChildren(...items);
  if (focused) list.querySelector(`[data-class="${focused}"]`)?.focus();
}

/** Show which of the buttons is the class that is explained. */
export function markClass(list, target) {
  for (const button of list.querySelectorAll("button")) {
    button.ariaPressed = String(Number(button.dataset.class) === target);
  }
}

/** Photos that are chosen, dropped or pasted, as a list. */
export function takePhotos(input, area, open) {
  const take = (files) => {
    if (files.length) open([...files]);
  };
  input.onchange = () => {
    take(input.files);
    input.value = ""; // so that the same photo can be chosen again
  };
  input.onchange(); // before this script was there
  document.ondragover = (event) => {
    event.preventDefault();
    area.classList.add("over");
  };
  document.ondragleave = (event) => event.relatedTarget ?? area.classList.remove("over");
  document.ondrop = (event) => {
    event.preventDefault();
    area.classList.remove("over");
    take(event.dataTransfer.files);
  };
  document.onpaste = (event) => take(event.clipboardData.files);
}

/** Hand a picture over as a file. */
export function save(blob, name) {
  const link = element("a", "", { href: URL.createObjectURL(blob), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}
