// What the exported page and that of `torchfbi serve` have in common.

export const $ = (id) => document.getElementById(id);

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`;

/** An element with its text, and whatever else is said of it. */
export function element(tag, text = "", properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text, ...properties });
}

/** Fill a list with a button for each [number, name, probability]. */
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
  list.replaceChildren(...items);
}

/** Show which of the buttons is the class that is explained. */
export function markClass(list, target) {
  for (const button of list.querySelectorAll("button")) {
    button.ariaPressed = String(Number(button.dataset.class) === target);
  }
}

/** Photos that are chosen, dropped or pasted, one at a time. */
export function takePhotos(input, area, open) {
  input.onchange = () => {
    if (input.files.length) open(input.files[0]);
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
    if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
  };
  document.onpaste = (event) => {
    if (event.clipboardData.files.length) open(event.clipboardData.files[0]);
  };
}

/** Hand a picture over as a file. */
export function save(blob, name) {
  const link = element("a", "", { href: URL.createObjectURL(blob), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}
