// The explanation over the photo, as torchfbi's figures draw it: a veiled grey photo, and on it
// the support in the colours of fire, strong where much of the signal arrives.

const FIRE = ["#ffe08a", "#fda83b", "#fb5a29", "#c9131f", "#6d0020"].map((hex) =>
  [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)),
);
const FAINTEST = 0.12; // at which a pixel of the support is drawn at least
const LONGEST_SIDE = 1024;

/** Draw a photo and the explanation of its region, both blended by an opacity in [0, 1]. */
export function draw(canvas, photo, explanation, opacity) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(photo.width, photo.height));
  canvas.width = Math.max(1, Math.round(photo.width * scale));
  canvas.height = Math.max(1, Math.round(photo.height * scale));
  const context = canvas.getContext("2d");
  context.drawImage(photo.canvas, 0, 0, canvas.width, canvas.height);
  if (!explanation) return;
  context.globalAlpha = opacity;
  context.drawImage(veiled(canvas), 0, 0);
  const { left, top, right, bottom } = explanation.region;
  context.imageSmoothingQuality = "high";
  const corner = [left * scale, top * scale];
  context.drawImage(explanation.picture, ...corner, (right - left) * scale, (bottom - top) * scale);
  context.globalAlpha = 1;
}

/** The support as a picture of the network's size, transparent where there is none. */
export function paint(values, support, [, channels, height, width]) {
  const strength = magnitudes(values, support, channels);
  const top = quantile(strength.filter((value) => value > 0), 0.995) || 1;
  const image = new ImageData(width, height);
  strength.forEach((value, i) => {
    if (!support[i]) return;
    const share = Math.max(FAINTEST, Math.min(1, value / top) ** 0.6);
    image.data.set([...fire(share), Math.min(255, Math.round(2 * 255 * share))], 4 * i);
  });
  const picture = new OffscreenCanvas(width, height);
  picture.getContext("2d").putImageData(image, 0, 0);
  return picture;
}

function magnitudes(values, support, channels) {
  const sums = new Float32Array(support.length);
  for (let i = 0; i < sums.length; i++) {
    for (let c = 0; c < channels; c++) sums[i] += Math.abs(values[c * sums.length + i]);
  }
  return sums;
}

function quantile(values, share) {
  const sorted = Float32Array.from(values).sort();
  return sorted[Math.floor(share * (sorted.length - 1))];
}

function fire(share) {
  const place = share * (FIRE.length - 1);
  const [low, part] = [Math.min(Math.floor(place), FIRE.length - 2), place];
  return FIRE[low].map((from, c) => Math.round(from + (FIRE[low + 1][c] - from) * (part - low)));
}

/** What the canvas shows, grey and pale. */
function veiled(canvas) {
  const pale = new OffscreenCanvas(canvas.width, canvas.height);
  const context = pale.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < image.data.length; i += 4) {
    const [red, green, blue] = image.data.subarray(i, i + 3);
    image.data.fill(0.4 * 255 + 0.6 * (0.299 * red + 0.587 * green + 0.114 * blue), i, i + 3);
  }
  context.putImageData(image, 0, 0);
  return pale;
}
