// From a picture file to what the network takes, as torchfbi's Preprocess does it in Python: the
// same resampling as Pillow's, in the same fixed-point arithmetic, so that the pixels are the same.

const PRECISION = 22;
const LONGEST = 16; // of a longer photo only the part that is cropped is resized
const MOST_PIXELS = 89_478_485;

/** Decode a file: upright, colours as stored, what is transparent laid on white. */
export async function decode(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name || "This"} is no picture that the browser can read.`);
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) {
    throw new Error(`${file.name || "This picture"} has over 89 million pixels. Scale it down.`);
  }
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  return { width, height, data, canvas, brightness: brightness(data), name: file.name || "photo" };
}

/** The mean of red, green and blue, in [0, 1]. */
function brightness(data) {
  let sum = 0;
  for (let i = 0; i < data.length; i++) if (i % 4 < 3) sum += data[i];
  return sum / (0.75 * 255 * data.length);
}

/** The network's input, Float32Array (channels, height, width), the region of the photo that it
 * shows, and whether that is the whole photo. */
export function prepare(photo, preprocess) {
  const [height, width] = size(preprocess);
  const { rows, columns, top, left } = grid(photo, preprocess);
  const region = regionOf(photo, preprocess);
  const grey = preprocess.channels === "L";
  const source = planes(photo.data, grey);
  const filter = preprocess.interpolation;
  const all = { left: 0, top: 0, right: photo.width, bottom: photo.height };
  const cropped = rows * columns > LONGEST * preprocess.resize ** 2;
  const [outHeight, outWidth] = cropped ? [height, width] : [rows, columns];
  const [y0, x0] = cropped ? [0, 0] : [top, left];
  const box = cropped ? region : all;
  const order = preprocess.channels === "BGR" ? [2, 1, 0] : source.map((_, i) => i);
  const tensor = new Float32Array(order.length * height * width);
  order.forEach((channel, place) => {
    const plane = resample(source[channel], photo.width, photo.height, outWidth, outHeight, box, filter);
    const mean = Math.fround(preprocess.mean[place]);
    const std = Math.fround(preprocess.std[place]);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const value = Math.fround(plane[(y + y0) * outWidth + x + x0] / 255);
        tensor[(place * height + y) * width + x] = Math.fround(value - mean) / std;
      }
    }
  });
  const seen = (region.right - region.left) * (region.bottom - region.top);
  const whole = seen > 0.999 * photo.width * photo.height;
  return { tensor, shape: [1, order.length, height, width], region, whole };
}

export function size({ crop }) {
  return Array.isArray(crop) ? crop : [crop, crop];
}

/** The part of the photo that the network sees, in photo pixels. */
export function regionOf(photo, preprocess) {
  const [height, width] = size(preprocess);
  const { rows, columns, top, left } = grid(photo, preprocess);
  const [y, x] = [photo.height / rows, photo.width / columns];
  return {
    left: left * x,
    top: top * y,
    right: Math.min((left + width) * x, photo.width),
    bottom: Math.min((top + height) * y, photo.height),
  };
}

/** The size of the resized photo, and where the crop begins. */
function grid(photo, preprocess) {
  const [height, width] = size(preprocess);
  if (preprocess.fit === "stretch") return { rows: height, columns: width, top: 0, left: 0 };
  const shorter = Math.min(photo.height, photo.width);
  const rows = Math.trunc((preprocess.resize * photo.height) / shorter);
  const columns = Math.trunc((preprocess.resize * photo.width) / shorter);
  return { rows, columns, top: halfToEven(rows - height), left: halfToEven(columns - width) };
}

/** n / 2 as Python rounds it. */
function halfToEven(n) {
  const half = Math.floor(n / 2);
  return n % 2 && half % 2 ? half + 1 : half;
}

/** The colours one by one, or Pillow's luma. */
function planes(rgba, grey) {
  const pixels = rgba.length / 4;
  const colour = (c) => Uint8Array.from({ length: pixels }, (_, i) => rgba[4 * i + c]);
  if (!grey) return [colour(0), colour(1), colour(2)];
  const luma = (i) => 19595 * rgba[4 * i] + 38470 * rgba[4 * i + 1] + 7471 * rgba[4 * i + 2];
  return [Uint8Array.from({ length: pixels }, (_, i) => (luma(i) + 0x8000) >> 16)];
}

/** Resize one colour as Pillow does: one axis after the other, each rounded to bytes. */
function resample(plane, width, height, outWidth, outHeight, box, filter) {
  const across = weights(width, box.left, box.right, outWidth, filter);
  const down = weights(height, box.top, box.bottom, outHeight, filter);
  const shrinks = outHeight < height && outWidth > width; // then Pillow starts with the columns
  if (shrinks) {
    const shorter = alongColumns(plane, width, down);
    return alongRows(shorter, width, outHeight, across);
  }
  return alongColumns(alongRows(plane, width, height, across), outWidth, down);
}

function alongRows(plane, width, height, taps) {
  const result = new Uint8Array(height * taps.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < taps.length; x++) {
      const { first, values } = taps[x];
      let sum = 2 ** (PRECISION - 1);
      for (let i = 0; i < values.length; i++) sum += plane[y * width + first + i] * values[i];
      result[y * taps.length + x] = toByte(sum);
    }
  }
  return result;
}

function alongColumns(plane, width, taps) {
  const result = new Uint8Array(taps.length * width);
  for (let y = 0; y < taps.length; y++) {
    const { first, values } = taps[y];
    for (let x = 0; x < width; x++) {
      let sum = 2 ** (PRECISION - 1);
      for (let i = 0; i < values.length; i++) sum += plane[(first + i) * width + x] * values[i];
      result[y * width + x] = toByte(sum);
    }
  }
  return result;
}

function toByte(sum) {
  return Math.max(0, Math.min(255, Math.floor(sum / 2 ** PRECISION)));
}

/** For each output pixel the weights of the input pixels under its filter, in fixed point. */
function weights(length, start, stop, outputs, filter) {
  const { reach, shape } = FILTERS[filter];
  const scale = (stop - start) / outputs;
  const stretch = Math.max(scale, 1);
  const taps = [];
  for (let output = 0; output < outputs; output++) {
    const centre = start + (output + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach * stretch + 0.5), 0);
    const last = Math.min(Math.trunc(centre + reach * stretch + 0.5), length);
    const values = [];
    for (let x = first; x < last; x++) values.push(shape((x - centre + 0.5) * (1 / stretch)));
    const total = values.reduce((sum, value) => sum + value, 0);
    taps.push({ first, values: values.map((value) => fixed(value / total)) });
  }
  return taps;
}

function fixed(weight) {
  return Math.trunc(weight * 2 ** PRECISION + (weight < 0 ? -0.5 : 0.5));
}

const FILTERS = {
  bilinear: { reach: 1, shape: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    reach: 2,
    shape: (x) => {
      const [a, d] = [-0.5, Math.abs(x)];
      if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
      return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
    },
  },
};
