// Whether an explanation holds: in words below the picture, and as an outline in it.

import { $, element } from "./parts.js";

const SVG = "http://www.w3.org/2000/svg";

/** Show a verdict, or that there is none yet, in words. */
export function showVerdict(found, text = "") {
  $("outline").replaceChildren();
  $("verdict").replaceChildren();
  $("verdict").className = found?.ruling.replaceAll(" ", "-") ?? "";
  if (!found) return $("verdict").append(element("p", text, { className: "hint" }));
  const [height, width] = found.size;
  $("outline").setAttribute("viewBox", `0 0 ${width} ${height}`);
  for (const [name, d] of Object.entries(found.outlines)) {
    for (const part of ["edge", name]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("d", d);
      path.setAttribute("class", part);
      $("outline").append(path);
    }
  }
  const said = element("p");
  const ruling = `${found.ruling[0].toUpperCase()}${found.ruling.slice(1)}`;
  said.append(element("strong", ruling), " ", found.gist);
  const all = element("details");
  all.append(element("summary", "What was tested"), element("p", found.sentence, { className: "hint" }));
  $("verdict").append(said, all);
}

/** Draw the outline as it is shown, on a canvas of that size. */
export function drawOutline(context, width, height) {
  const { left, top, width: across, height: down } = $("outline").style;
  const share = (text) => parseFloat(text) / 100;
  const box = $("outline").viewBox.baseVal;
  for (const path of $("outline").children) {
    const place = new DOMMatrix([share(across) * width / box.width, 0, 0, share(down) * height / box.height, share(left) * width, share(top) * height]);
    const line = new Path2D();
    line.addPath(new Path2D(path.getAttribute("d")), place);
    const { stroke, strokeWidth } = getComputedStyle(path);
    Object.assign(context, { strokeStyle: stroke, lineWidth: parseFloat(strokeWidth), lineCap: "square" });
    context.stroke(line);
  }
}
