// The page: a photo in, the classes and the explanation of one of them out.

import { draw, isDark, paint } from "./drawing.js";
import { $, element, listClasses, markClass, percent, save, takePhotos } from "./parts.js";
import { decode, prepare } from "./photo.js";

const metadata = await (await fetch("explainer.json")).json();
const worker = new Worker("worker.js", { type: "module" });
const KNOBS = ["k", "tau"]; // those that the network was exported without are null
const settings = Object.fromEntries(KNOBS.map((name) => [name, metadata.inputs[name]]));

// What is shown: the photo, its prepared input, and the answer of the network.
const shown = { photo: null, input: null, target: null, explanation: null, classes: 0 };
let asked = 0;
let opened = 0;

/** Explain a class of the photo; -1 asks for the top class. */
function ask(target) {
  asked += 1;
  Object.assign(shown, { target, explanation: null }); // no old picture under a new name
  redraw();
  $("picture").classList.add("busy");
  say("Computing the explanation …");
  const { tensor, shape } = shown.input;
  worker.postMessage({ id: asked, tensor, shape, target, ...settings });
}

worker.onmessage = ({ data }) => {
  if (data.ready) {
    document.documentElement.dataset.ready = "true";
    if (shown.photo || $("status").matches(".wrong")) return;
    say("");
    if (!opened) $("examples").firstElementChild.click(); // not an empty frame
  } else if (data.error) {
    complain(data.error);
  } else if (data.id === asked) {
    answer(data);
  }
};

function answer({ logits, values, support, milliseconds }) {
  const probabilities = softmax(logits);
  const best = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  shown.classes = logits.length;
  if (shown.target < 0) shown.target = best[0];
  const listed = [...new Set([...best.slice(0, 5), shown.target])];
  listClasses($("classes"), listed.map((number) => [number, label(number), probabilities[number]]), choose);
  markClass($("classes"), shown.target);
  const density = support.reduce((sum, on) => sum + on, 0) / support.length;
  const picture = paint(values, shown.input.shape, metadata.settings.values === "evidence");
  const { region, whole } = shown.input;
  shown.explanation = { picture, region, whole, values, support, logits };
  $("picture").classList.remove("busy");
  $("results").hidden = $("tools").hidden = false;
  if (!$("status").matches(".wrong")) { // no complaint came meanwhile
    say(density ? "" : "Empty support: no pixel speaks for this class.");
  }
  const facts = { Support: `${percent(density)} of the pixels the network saw`, Time: `${(milliseconds / 1000).toFixed(1)} s` };
  if (!whole) facts.Frame = "what the network saw";
  if (isDark(shown.photo)) facts.Photo = "dark: brightened where the explanation is drawn";
  $("facts").replaceChildren(...Object.entries(facts).flatMap(([name, fact]) => [element("dt", name), element("dd", fact)]));
  const claim = `${label(shown.target)} (${percent(probabilities[shown.target])})`;
  $("canvas").ariaLabel = `${shown.photo.name}: highlighted are the ${percent(density)} of the pixels that made the network say ${claim}`;
  redraw();
}

function choose(number) {
  markClass($("classes"), number);
  ask(number);
}

/** Show another photo: a file, or a promise of one. */
async function open(source) {
  const turn = (opened += 1);
  let file, photo, input;
  try {
    file = await source;
    photo = await decode(file);
    input = prepare(photo, metadata.preprocess);
  } catch (error) {
    if (turn === opened) complain(error.message);
    return;
  }
  if (turn !== opened) return; // another one was chosen meanwhile
  Object.assign(shown, { photo, input, explanation: null });
  $("invitation").hidden = true;
  $("other").value = "";
  $("canvas").hidden = false;
  for (const button of $("examples").children) button.ariaPressed = String(button.value === file.name);
  $("canvas").ariaLabel = shown.photo.name;
  $("drop").classList.add("filled");
  redraw();
  ask(-1);
}

function redraw() {
  draw($("canvas"), shown.photo, shown.explanation, $("opacity").value / 100);
}

function say(text) {
  $("status").classList.remove("wrong");
  $("status").textContent = text;
}

function complain(text) {
  $("picture").classList.remove("busy");
  $("status").classList.add("wrong");
  $("status").textContent = text;
}

function label(number) {
  return metadata.labels?.[number] ?? `class ${number}`;
}

/** The classes that a number or a name fits, or else words of a name, or else a part of one. */
function named(text) {
  const plain = text.toLowerCase();
  const words = new RegExp(`(?<!\\w)${plain.replace(/[^\w\s]/g, "\\$&")}(?!\\w)`);
  const classes = Array.from({ length: shown.classes }, (_, number) => [number, label(number).toLowerCase()]);
  const rules = [
    ([number, name]) => String(number) === text || name === plain,
    ([, name]) => words.test(name),
    ([, name]) => name.includes(plain),
  ];
  const found = rules.map((rule) => classes.filter(rule)).find(({ length }) => length) ?? [];
  return found.map(([number]) => number);
}

function softmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const powers = Float64Array.from(logits, (z) => Math.exp(z - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((p) => p / sum);
}

function showSettings() {
  const { k, tau } = settings;
  $("settings").hidden = k === null && tau === null;
  $("k-setting").hidden = k === null;
  $("tau-setting").hidden = tau === null;
  $("k").value = k;
  $("k-value").textContent = k === null ? "" : percent(k, 0);
  $("tau").max = 4 * Math.max(metadata.inputs.tau, 0.25);
  $("tau").value = tau;
  $("tau-value").textContent = tau?.toPrecision(3) ?? "";
}

let pause = 0; // Firefox says "change" of a slider that keys move only when it is left
for (const name of KNOBS) {
  $(name).oninput = () => {
    settings[name] = Number($(name).value);
    showSettings();
    clearTimeout(pause);
    pause = setTimeout(() => ask(shown.target), 150);
  };
}

$("reset").onclick = () => {
  for (const name of KNOBS) settings[name] = metadata.inputs[name];
  showSettings();
  ask(shown.target);
};

$("other").onchange = () => {
  const text = $("other").value.trim();
  if (!text || !shown.classes) return;
  const found = named(text);
  if (!found.length) return complain(`This network has no class called “${text}”.`);
  if (found.length > 1) {
    const few = found.slice(0, 8).map((number) => `${number} ${label(number)}`);
    return complain(`“${text}” may be any of ${found.length} classes: give a number. ${few.join(", ")}${found.length > 8 ? ", …" : ""}`);
  }
  $("other").value = "";
  choose(found[0]);
};
$("names").append(...(metadata.labels ?? []).map((value) => element("option", "", { value })));
for (const button of $("examples").children) {
  button.onclick = () => open(example(button.value));
}

async function example(name) {
  return new File([await (await fetch(name)).blob()], name);
}

$("opacity").oninput = redraw;
$("choose").onclick = $("another").onclick = () => $("file").click();
$("download").onclick = () => {
  const stem = shown.photo.name.replace(/\.[^.]*$/, "");
  const name = `${stem}-${label(shown.target)}`.replace(/[^\p{L}\p{N}]+/gu, "-") + ".png";
  $("canvas").toBlob((blob) => save(blob, name));
};
takePhotos($("file"), $("drop"), ([file]) => open(file));
matchMedia("(prefers-color-scheme: dark)").onchange = () => shown.photo && redraw(); // the frame

$("assumed").textContent = metadata.assumed.join(" ");
const versions = metadata.versions;
$("origin").textContent = `${metadata.model}, preset ${metadata.settings.preset}. Made by torchfbi ${versions.torchfbi} export.`;
showSettings();

// For scripts that drive this page, and for its tests.
window.torchfbi = { shown, settings, open, prepare, decode, metadata };
