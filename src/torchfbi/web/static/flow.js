// The flow, layer by layer: all of it is in the page, one layer is shown, and it plays.

import { element, percent } from "./parts.js";

const LAYER = "Layer, from the class to the pixels";

/** Show the flow in a panel, opened at the first layer that is fine enough to say something. */
export function showFlow(panel, { photo, rows, layers }) {
  const sections = layers.map((layer, i) => section(layer, i, layers.length, photo, rows));
  const play = element("button", "▶ Play", { type: "button", className: "primary" });
  const slider = element("input", "", { type: "range", min: 0, max: layers.length - 1, ariaLabel: LAYER });
  const bars = layers.map((layer, i) => {
    const bar = element("i", "", { title: `${layer.name}: ${percent(layer.density)}` });
    const height = element("i");
    height.style.height = `${100 * layer.density}%`;
    bar.append(height);
    bar.onclick = () => (stop(), turn(i));
    return bar;
  });
  let timer = null;

  function turn(number) {
    sections.forEach((one, i) => (one.hidden = i !== number));
    bars.forEach((one, i) => one.classList.toggle("now", i === number));
    slider.value = number;
    slider.ariaValueText = `${layers[number].name}, ${number + 1} of ${layers.length}`;
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶ Play";
  }
  play.onclick = () => {
    if (timer) return stop();
    if (Number(slider.value) === layers.length - 1) turn(0);
    play.textContent = "❚❚ Pause";
    timer = setInterval(() => {
      const next = Number(slider.value) + 1;
      if (next === layers.length || !panel.contains(slider)) stop();
      else turn(next);
    }, 450);
  };
  slider.oninput = () => (stop(), turn(Number(slider.value)));

  const player = element("div", "", { className: "player" });
  player.append(play, slider);
  const density = element("div", "", { className: "density", ariaHidden: "true" });
  density.append(...bars);
  const ends = element("p", "", { className: "ends hint", ariaHidden: "true" });
  ends.append(...["from the class", "share of the positions, layer by layer", "to the pixels"].map((text) => element("span", text)));
  panel.replaceChildren(player, density, ends, ...sections, scales());
  turn(Math.max(0, layers.findIndex(({ size, density }) => Math.min(size[1], size[2]) >= 12 && density > 0)));
}

function section(layer, number, count, photo, rows) {
  const found = element("section", "", { ariaLabel: layer.name });
  const size = layer.size.join(" × ");
  const name = element("h2");
  const cut = element("span", "", { className: "name", title: layer.name });
  cut.append(element("bdi", layer.name));
  name.append(cut, element("small", `layer ${number + 1} of ${count} · ${size}`));
  const maps = layer.size[0] > 3 ? `, ${layer.maps} of ${layer.size[0]} maps` : "";
  const said = [
    layer.forward ? `${rows[0].meaning}: ${layer.forward_range}` : "the photo itself",
    `${rows[1].meaning}: ${layer.evidence_range}`,
    `${rows[2].meaning}; ${percent(layer.density)} of the positions${maps}`,
  ];
  const pictures = [layer.forward ?? photo, layer.evidence, layer.support];
  const three = element("div", "", { className: "three" });
  three.append(...rows.map((row, i) => figure(pictures[i], `${row.name} at ${layer.name}`, row.name, said[i])));
  found.append(name, three);
  if (layer.strongest.length) {
    const list = element("div", "", { className: "maps" });
    list.append(...layer.strongest.map((map) => figure(map.picture, `Feature map ${map.number}`, `#${map.number}`, percent(map.share))));
    found.append(element("h2", "The strongest feature maps, and their shares of what goes on"), list);
  }
  return found;
}

/** A picture with a name and a sentence; coarse ones keep their squares. */
export function figure(src, alt, name, said) {
  const found = element("figure");
  const picture = element("img", "", { src, alt });
  picture.onload = () => picture.classList.toggle("coarse", Math.min(picture.naturalWidth, picture.naturalHeight) < 64);
  const caption = element("figcaption");
  caption.append(element("strong", name), " ", element("span", said));
  found.append(picture, caption);
  return found;
}

function scales() {
  const found = element("div", "", { className: "scales", ariaHidden: "true" });
  for (const [low, name, high] of [["low", "forward", "high activation"], ["against", "signed", "for"]]) {
    const scale = element("div", "", { className: "scale" });
    scale.append(element("span", low), element("i", "", { className: name }), element("span", high));
    found.append(scale);
  }
  return found;
}
