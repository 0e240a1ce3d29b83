// The explanation of a photo, as torchfbi's figures draw it: the photo in its own colours where
// something speaks for the class, dim and grey elsewhere.

const DIM = 0.22; // how bright the photo is where nothing speaks for the class
const POWER = 0.35; // of the relative evidence, which has heavy tails
const SMOOTHING = 3 / 224; // a Gaussian's standard deviation, by the longer side
const LONGEST_SIDE = 1024;
const DARK = 1 / 3; // photos darker than this on average are brightened: dimmed, they would be black

/** Draw a photo and what its explanation reveals of it, by an opacity in [0, 1]. */
export function draw(canvas, photo, explanation, opacity) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(photo.width, photo.height));
  canvas.width = Math.max(1, Math.round(photo.width * scale));
  canvas.height = Math.max(1, Math.round(photo.height * scale));
  const context = canvas.getContext("2d");
  context.drawImage(photo.canvas, 0, 0, canvas.width, canvas.height);
  if (!explanation || !opacity) return;
  const readable = isDark(photo) ? brightened(canvas, photo.brightness) : canvas;
  const revealed = new OffscreenCanvas(canvas.width, canvas.height);
  const shown = revealed.getContext("2d");
  const { left, top, right, bottom } = explanation.region;
  const place = [left * scale, top * scale, (right - left) * scale, (bottom - top) * scale];
  shown.imageSmoothingQuality = "high";
  shown.drawImage(explanation.picture, ...place);
  shown.globalCompositeOperation = "source-in";
  shown.drawImage(readable, 0, 0);
  context.globalAlpha = opacity;
  context.drawImage(dimmed(readable), 0, 0);
  context.globalAlpha = 1;
  context.drawImage(revealed, 0, 0);
  if (explanation.whole) return;
  context.strokeStyle = getComputedStyle(canvas).getPropertyValue("--accent");
  context.lineWidth = canvas.width / 400;
  context.strokeRect(...place); // what the network saw
}

/** How far each pixel of the network's input is revealed, as a picture's opacity. */
export function paint(values, [, channels, height, width], signed) {
  const evidence = new Float32Array(height * width);
  values.forEach((value, i) => {
    evidence[i % evidence.length] += signed ? value : Math.abs(value);
  });
  let strength = evidence.map((value) => Math.max(value, 0));
  if (Math.min(height, width) >= 64) {
    const sigma = SMOOTHING * Math.max(height, width);
    strength = smooth(smooth(strength, height, width, sigma), width, height, sigma);
  }
  const largest = quantile(strength.filter((value) => value > 0), 0.995) || 1;
  const image = new ImageData(width, height);
  strength.forEach((value, i) => {
    image.data[4 * i + 3] = Math.round(255 * Math.min(1, value / largest) ** POWER);
  });
  const picture = new OffscreenCanvas(width, height);
  picture.getContext("2d").putImageData(image, 0, 0);
  return picture;
}

/** Rows smoothed by a Gaussian that is cut off at the border, and the map turned on its side. */
function smooth(map, height, width, sigma) {
  const turned = new Float32Array(map.length);
  const reach = Math.ceil(4 * sigma);
  const kernel = Array.from({ length: reach + 1 }, (_, d) => Math.exp(-0.5 * (d / sigma) ** 2));
  const totals = new Float32Array(width); // of the weights that meet at a pixel
  for (let x = 0; x < width; x++) {
    for (let to = Math.max(0, x - reach); to <= Math.min(width - 1, x + reach); to++) {
      totals[x] += kernel[Math.abs(x - to)];
    }
  }
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const given = map[y * width + x];
      if (!given) continue;
      for (let to = Math.max(0, x - reach); to <= Math.min(width - 1, x + reach); to++) {
        turned[to * height + y] += (given * kernel[Math.abs(x - to)]) / totals[to];
      }
    }
  }
  return turned;
}

function quantile(values, share) {
  const sorted = Float32Array.from(values).sort();
  return sorted[Math.floor(share * (sorted.length - 1))];
}

/** The colours of a canvas, each pixel's changed in place by a function, as a canvas of their own. */
function recoloured(canvas, change) {
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  change(image.data);
  context.putImageData(image, 0, 0);
  return copy;
}

/** What the canvas shows, grey and dim. */
function dimmed(canvas) {
  return recoloured(canvas, (data) => {
    for (let i = 0; i < data.length; i += 4) {
      data.fill(DIM * (0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2]), i, i + 3);
    }
  });
}

/** What the canvas shows, with the gamma that its brightness needs. */
function brightened(canvas, brightness) {
  const gamma = Math.log(DARK) / Math.log(Math.max(brightness, 1 / 255));
  const table = Array.from({ length: 256 }, (_, level) => 255 * (level / 255) ** gamma);
  return recoloured(canvas, (data) => {
    for (let i = 0; i < data.length; i++) if (i % 4 < 3) data[i] = table[data[i]];
  });
}

/** Whether a photo is brightened where an explanation is drawn on it. */
export function isDark(photo) {
  return photo.brightness < DARK;
}
