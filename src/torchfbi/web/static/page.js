// The page: what a visitor looks at, and what happens when something is chosen.

import { $, element, listClasses, markClass, percent, save, takePhotos } from "./parts.js";
import { explainNext, showAlbum } from "./album.js";
import { Asking } from "./asking.js";
import { hasWebcam, showWebcam } from "./camera.js";
import { showFlow } from "./flow.js";
import { compare, sweep } from "./grids.js";
import { listSettings, readSettings, showSettings } from "./settings.js";
import { drawOutline, showVerdict } from "./verdict.js";

// A photo can be chosen from the first moment on; it is opened once it is known whom to ask.
let early = null;
takePhotos($("file"), $("drop"), (photos) => (early = photos));

const config = await fetch("config").then((response) => response.json()).catch((error) => {
  say("The server cannot be reached. Reload the page once it runs.", "wrong");
  throw error;
});
const asking = new Asking(config.limits);

// What is asked. `changed` are the settings that differ from the preset's.
const wish = { model: config.networks[0], target: null, preset: "contrast", changed: {}, fit: true };
const NETWORKS = /\.(onnx|pt2?|pth|ckpt|safetensors|keras|h5|tflite)$/i;
let answer = null; // to what is asked now; null until it is there
let brought = null; // the visitor's own network, as a file
const drawn = { flow: null }; // to which answer another tab belongs

/** What was chosen: photos, of which the first is shown, or a network. */
function take(files) {
  const network = files.find(({ name }) => NETWORKS.test(name));
  if (network) return bring(network);
  showAlbum(files.length > 1 ? files : [], open);
  open(files[0]);
}

/** A network of the visitor's own, which answers from now on, where whoever serves this allows it;
 * with what is said about its inputs. */
function bring(file, inputs = "") {
  const { name } = file;
  const owner = `torchfbi serve --model ${name}`;
  if (!config.limits.network) {
    return say(`${name} is a network. Here only those of who serves this page are explained (${owner}); visitors may bring theirs where it is served with --allow-networks.`, "wrong");
  }
  if (!/\.onnx$/i.test(name)) {
    return say(`${name} is not read: of networks that are dropped only ONNX files are, which are nothing but data. Files of PyTorch and Keras may hold code that runs. Export it to .onnx, or have it served: ${owner}`, "wrong");
  }
  return during(`Reading ${name} …`, async (latest) => {
    const found = await asking.bring(file, inputs, latest);
    if (!found) return;
    if (file !== brought) $("inputs").reset();
    brought = file;
    for (const name of ["mean", "std"]) $("inputs")[name].placeholder = listed(found.about[name]);
    for (const part of $("inputs").querySelectorAll(".colours")) part.hidden = found.about.mean.length !== 3;
    $("network").querySelector(".own")?.remove();
    const option = element("option", `${found.about.name} (yours)`, { value: found.network, className: "own" });
    $("network").append(option);
    $("network-part").hidden = false;
    $("network").value = found.network;
    $("network").onchange();
    if (!asking.photo) say(`${name} answers from now on. Choose a photo.`);
  });
}

/** Numbers of channels, to be read and written; one where all are the same. */
const listed = (numbers) => (new Set(numbers).size > 1 ? numbers : numbers.slice(0, 1)).map((number) => Number(number.toPrecision(8))).join(", ");

/** Show another photo: a file of the visitor's, or the name of an example. */
async function open(source) {
  forget();
  Object.assign(wish, { target: null });
  $("classes").replaceChildren();
  const name = source.name ?? source;
  $("stage").classList.add("old");
  for (const button of $("examples").children) button.ariaPressed = String(button.value === source);
  await during(`Sending ${name} …`, async (latest) => {
    const photo = await asking.send(source, latest);
    if (!photo) return;
    $("invitation").hidden = true;
    $("stage").hidden = $("under").hidden = false;
    $("stage").classList.remove("old");
    $("photo").src = photo.preview;
    $("photo").alt = `The photo ${photo.name}, ${photo.width} by ${photo.height} pixels`;
    const limit = document.documentElement.style;
    limit.setProperty("--ratio", photo.width / photo.height);
    explain();
  });
}

/** Ask what is wished, and show it, unless something else is wished meanwhile. */
function explain() {
  if (!asking.photo) return; // one that is on its way is explained when it is there
  forget();
  const named = wish.target === null ? "the most probable class" : nameOf(wish.target);
  return during(`Explaining ${named} …`, async (latest) => {
    const found = await asking.get("explanation", question(), latest);
    if (found) show(found);
  });
}

function question({ target } = wish) {
  const asked = { model: wish.model, preset: wish.preset };
  if (target !== null) asked.target = target;
  if (Object.keys(wish.changed).length) asked.settings = JSON.stringify(wish.changed);
  if (wish.fit) asked.fit = 1;
  return new URLSearchParams(asked).toString();
}

/** No old picture under a new name. */
function forget() {
  answer = drawn.flow = null;
  $("answer").classList.remove("answered");
  $("flow").replaceChildren();
  for (const id of ["compared", "swept", "notes", "downloads"]) $(id).replaceChildren();
  showVerdict(null);
  for (const id of ["claim", "about", "assumed", "program", "swept-hint"]) $(id).textContent = "";
  $("fit").hidden = true;
  $("painted").removeAttribute("src");
  for (const id of ["ask-methods", "ask-sweep"]) $(id).disabled = true; // of what?
  if (wish.target !== null) markClass($("classes"), wish.target);
}

function show(found) {
  answer = found;
  wish.target = found.target;
  const rows = found.top.map((row) => [row.class, row.label, row.probability]);
  listClasses($("classes"), rows, choose);
  markClass($("classes"), found.target);
  const [left, top, right, bottom] = found.region;
  const { width, height } = asking.photo;
  const box = { left: left / width, top: top / height, width: (right - left) / width, height: (bottom - top) / height };
  const whole = box.width * box.height > 0.999;
  $("painted").src = found.picture;
  $("painted").alt = `In colour is what speaks for ${found.title}: ${percent(found.density)} of the pixels carry it`;
  $("frame").hidden = whole;
  for (const part of [$("frame"), $("outline")]) {
    for (const [side, share] of Object.entries(box)) part.style[side] = `${100 * share}%`;
  }
  $("claim").textContent = found.title;
  const facts = [`${percent(found.density)} of the pixels carry it`, found.model];
  if (!whole) facts.push("frame: what it saw");
  $("about").replaceChildren(...facts.map((fact) => element("span", fact)));
  $("assumed").textContent = found.assumed.join(" ");
  $("notes").replaceChildren(...found.notes.map((note) => element("li", note)));
  $("fit").hidden = found.density > 0 || wish.fit;
  $("answer").classList.add("answered");
  for (const id of ["ask-methods", "ask-sweep"]) $(id).disabled = false;
  showSettings(config, found.settings);
  listFiles(found);
  if (selected() === "flow") drawFlow();
}

function listFiles({ files, stem, program }, more = "") {
  const kinds = {
    png: "the figure, for a talk",
    svg: "the figure, for a paper",
    npz: "values, logits, supports and photo, for torchfbi.Explanation.load",
    json: "the manifest: model, settings, versions",
    py: "the program below",
  };
  const items = Object.entries(kinds).map(([kind, what]) => {
    const link = element("a", "", { href: files[kind] + more, download: `${stem}.${kind}` });
    link.append(element("b", kind.toUpperCase()), element("span", what));
    const item = element("li");
    item.append(link);
    return item;
  });
  $("downloads").replaceChildren(...items);
  $("program").textContent = program;
}

/** Say what is done until it is done, and what went wrong. */
async function during(text, work) {
  const latest = asking.next();
  say(text, "busy");
  try {
    const done = await work(latest);
    if (latest.current && $("status").textContent === text) say(done ?? "");
  } catch (error) {
    if (latest.current) say(error.message, "wrong");
  }
  if (latest.current) rest();
}

/** While nothing else is asked: whether the explanation holds, then the next photo of many. */
async function rest() {
  const latest = asking.next();
  if (answer && !answer.tested) await verify(latest);
  const asked = question({ target: null });
  while (latest.current && (await explainNext(asked, (file) => asking.once(file, asked, latest))));
}

async function verify(latest) {
  const belongs = answer;
  if (!belongs.density) return;
  showVerdict(null, "Testing whether this holds …");
  const found = await asking.get("verdict", belongs.question, latest).catch((error) => error);
  if (!latest.current) return; // something else was asked: later again
  belongs.tested = true;
  if (found instanceof Error) return showVerdict(null, `Not tested: ${found.message}`);
  showVerdict(found);
  listFiles(belongs, "&verify=1");
}

function say(text, how = "") {
  $("status").textContent = text;
  $("status").className = how;
  $("answer").ariaBusy = String(how === "busy");
}

function choose(target) {
  wish.target = target;
  explain();
}

function nameOf(target) {
  const button = $("classes").querySelector(`[data-class="${CSS.escape(target)}"] .name`);
  return button ? button.textContent : target;
}

// The tabs, as the ARIA practices describe them.
const tabs = [...document.querySelectorAll("[role=tab]")];
const selected = () => tabs.find((tab) => tab.ariaSelected === "true").getAttribute("aria-controls");

function select(tab) {
  for (const one of tabs) {
    one.ariaSelected = String(one === tab);
    one.tabIndex = one === tab ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = one !== tab;
  }
  if (!$("status").className) say(""); // what was done stands on the tab where it was done
  if (selected() === "flow") drawFlow();
}

for (const [number, tab] of tabs.entries()) {
  tab.onclick = () => select(tab);
  tab.onkeydown = ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    const next = { Home: tabs[0], End: tabs.at(-1) }[key] ?? (step && tabs.at((number + step) % tabs.length));
    if (!next) return;
    select(next);
    next.focus();
  };
}

function drawFlow() {
  if (!answer || drawn.flow === answer) return;
  const belongs = (drawn.flow = answer);
  during("Following the flow …", async (latest) => {
    const found = await asking.get("flow", belongs.question, latest).catch((error) => error);
    if (answer !== belongs) return;
    if (found?.layers) return showFlow($("flow"), found);
    drawn.flow = null; // another look asks again
    if (found) throw found;
  });
}

/** Ask for several answers, one after the other, and show each as soon as it is there. */
function series(text, work) {
  during(text, (latest) => work((what, more) => {
    const asked = new URLSearchParams({ ...Object.fromEntries(new URLSearchParams(answer.question)), ...more });
    return asking.get(what, asked.toString(), latest);
  }));
}

$("ask-methods").onclick = () => {
  const chosen = [...$("methods").querySelectorAll("input:checked")].map((box) => box.value);
  series("Asking other methods …", (ask) => compare($("compared"), chosen, ask));
};
for (const id of ["ks", "taus"]) {
  $(id).onkeydown = ({ key }) => {
    if (key === "Enter") $("ask-sweep").click();
  };
}
$("ask-sweep").onclick = () => {
  const ks = $("ks").value.split(/[,;\s]+/).filter(Boolean).slice(0, 12);
  series("Drawing the grid …", (ask) => sweep($("swept"), $("swept-hint"), ks, $("taus").value, ask));
};

// The photo below the explanation.
const bare = (on) => {
  $("stage").classList.toggle("bare", on);
  $("hold").ariaPressed = String(on);
};
$("opacity").oninput = () => $("stage").style.setProperty("--opacity", $("opacity").value / 100);
for (const held of [$("hold"), $("stage")]) {
  held.onpointerdown = () => bare(true);
  held.onpointerup = held.onpointerleave = held.onpointercancel = () => bare(false);
  held.oncontextmenu = (event) => event.preventDefault(); // of a long press
}
$("hold").onkeydown = ({ key }) => {
  if (key === " " || key === "Enter") bare(true);
};
$("hold").onkeyup = $("hold").onblur = () => bare(false);

$("save").onclick = async () => {
  if (!answer) return;
  const { stem } = answer, { preset } = wish;
  const { naturalWidth, naturalHeight } = $("photo");
  const canvas = new OffscreenCanvas(naturalWidth, naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage($("photo"), 0, 0);
  context.globalAlpha = $("opacity").value / 100;
  context.drawImage($("painted"), 0, 0);
  drawOutline(context, naturalWidth, naturalHeight);
  save(await canvas.convertToBlob(), `${stem}-${preset}.png`);
};

// Photo, network, preset, settings, class.
$("choose").onclick = () => $("file").click();
const phone = matchMedia("(pointer: coarse)").matches;
$("camera").onclick = () => {
  if (phone) return $("shot").click();
  showWebcam((photo) => take([photo])).catch(({ message }) => say(`There is no camera to be used: ${message}`, "wrong"));
};
takePhotos($("file"), $("drop"), take);
$("shot").onchange = () => {
  if ($("shot").files.length) take([$("shot").files[0]]);
};
for (const { name, title, picture } of config.examples) {
  const button = element("button", "", { type: "button", title, value: name });
  button.append(element("img", "", { src: picture, alt: title }));
  button.onclick = () => {
    showAlbum([]);
    open(name);
  };
  $("examples").append(button);
}

for (const name of config.networks) $("network").append(element("option", name));
$("network-part").hidden = config.networks.length < 2;
$("network").onchange = () => {
  Object.assign(wish, { model: $("network").value, target: null });
  $("inputs").hidden = wish.model !== asking.network;
  $("classes").replaceChildren();
  listNames();
  explain();
};
for (const { name } of config.scalings) $("usual").append(element("option", name));
$("usual").onchange = () => {
  const chosen = config.scalings.find(({ name }) => name === $("usual").value);
  for (const name of ["mean", "std"]) $("inputs")[name].value = chosen ? listed(chosen[name]) : "";
  $("inputs").bgr.checked = Boolean(chosen?.bgr);
};
$("inputs").onsubmit = (event) => {
  event.preventDefault();
  bring(brought, new URLSearchParams(new FormData($("inputs"))));
};

for (const { name, word, help } of config.presets) {
  const label = element("label");
  const button = element("input", "", { type: "radio", name: "preset", value: name, checked: name === wish.preset });
  button.onchange = () => {
    Object.assign(wish, { preset: name, changed: {}, fit: true });
    $("preset-help").textContent = help;
    showSettings(config, preset()); // what is changed now, is changed about these
    explain();
  };
  if (button.checked) $("preset-help").textContent = help;
  label.append(button, element("span", word));
  $("presets").append(label);
}

for (const { name, source, chosen } of config.methods) {
  const label = element("label", "", { title: source });
  label.append(element("input", "", { type: "checkbox", value: name, checked: chosen }), name);
  $("methods").append(label);
}

const preset = () => config.presets.find(({ name }) => name === wish.preset).settings;
listSettings($("settings"), config, () => {
  wish.changed = readSettings($("settings"), config, preset());
  wish.fit = false;
  explain();
});
showSettings(config, preset());
$("reset").onclick = () => {
  Object.assign(wish, { changed: {}, fit: true });
  showSettings(config, preset());
  explain();
};
$("fit").onclick = () => {
  wish.fit = true;
  explain();
};

$("other").onchange = () => {
  const text = $("other").value.trim();
  $("other").value = "";
  if (text && asking.photo) choose(text);
};

async function listNames() {
  const { model } = wish;
  $("names").replaceChildren();
  const response = await fetch(`classes?${new URLSearchParams({ model })}`).catch(() => null);
  const names = response?.ok ? await response.json() : []; // they only help to type one
  if (model === wish.model) $("names").replaceChildren(...names.map((value) => element("option", "", { value })));
}

$("elsewhere").hidden = phone;
if (config.limits.network) $("file").accept += ",.onnx";
$("camera").hidden = !phone && !hasWebcam;
document.documentElement.dataset.ready = "true";
say("");
if (early) take(early);
else if (config.examples.length) open(config.examples[0].name);
listNames();
