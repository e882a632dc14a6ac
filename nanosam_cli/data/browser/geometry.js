// Between a photo and the model's square: `Frame` of nanosam_cli/core/frame.py in JavaScript, with its rounding.

export const FRAME = 1024; // side of the square that points live in, whatever the model's own side is
const LOW = 256; // side of the mask that the decoder gives

export class Frame {
  constructor(width, height, side) {
    const scale = side / Math.max(width, height);
    Object.assign(this, { width, height, side });
    this.inputWidth = Math.max(1, Math.floor(width * scale + 0.5));
    this.inputHeight = Math.max(1, Math.floor(height * scale + 0.5));
  }

  // x y in pixels of the photo -> in the frame
  point([x, y]) {
    const factor = FRAME / this.side;
    return [(x * this.inputWidth * factor) / this.width, (y * this.inputHeight * factor) / this.height];
  }

  // RGBA bytes of the photo -> (1, 3, S, S) float32, normalised and then padded with zeros
  input(rgba, mean, std) {
    const { width, height, side, inputWidth, inputHeight } = this;
    const wide = shrinkRows(rgba, width, height, inputWidth, 4);
    const turned = turn(wide, inputWidth, height);
    const small = shrinkRows(turned, height, inputWidth, inputHeight, 3); // rows are the photo's columns
    const tensor = new Float32Array(3 * side * side);
    for (let channel = 0; channel < 3; channel++) {
      for (let y = 0; y < inputHeight; y++) {
        for (let x = 0; x < inputWidth; x++) {
          const value = small[(x * inputHeight + y) * 3 + channel];
          tensor[(channel * side + y) * side + x] = (value - mean[channel]) / std[channel];
        }
      }
    }
    return tensor;
  }

  // Logits (256 x 256) over the square -> one byte a pixel of the photo, 1 where they are above 0
  mask(low) {
    const columns = this.#places(this.inputWidth, this.width);
    const rows = this.#places(this.inputHeight, this.height);
    const square = upscale(low, Math.max(...rows.second) + 1, Math.max(...columns.second) + 1);
    const mask = new Uint8Array(this.width * this.height);
    for (let y = 0; y < this.height; y++) {
      const above = rows.first[y] * square.width;
      const below = rows.second[y] * square.width;
      const down = rows.share[y];
      for (let x = 0; x < this.width; x++) {
        const left = columns.first[x];
        const right = columns.second[x];
        const across = columns.share[x];
        const top = square.data[above + left] * (1 - across) + square.data[above + right] * across;
        const bottom = square.data[below + left] * (1 - across) + square.data[below + right] * across;
        mask[y * this.width + x] = top * (1 - down) + bottom * down > 0 ? 1 : 0;
      }
    }
    return mask;
  }

  #places(input, original) {
    return bilinear(Math.max(1, roundHalfEven((input * FRAME) / this.side)), original);
  }
}

function roundHalfEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}

// For each of `target` places: two of `source` places and the share of the second; half-pixel centres
function bilinear(source, target) {
  const first = new Int32Array(target);
  const second = new Int32Array(target);
  const share = new Float32Array(target);
  for (let i = 0; i < target; i++) {
    const place = Math.min(Math.max(((i + 0.5) * source) / target - 0.5, 0), source - 1);
    first[i] = Math.floor(place);
    second[i] = Math.min(first[i] + 1, source - 1);
    share[i] = place - first[i];
  }
  return { first, second, share };
}

// The top left `height` x `width` of the mask at the frame's size
function upscale(low, height, width) {
  const places = bilinear(LOW, FRAME);
  const data = new Float32Array(height * width);
  for (let y = 0; y < height; y++) {
    const above = places.first[y] * LOW;
    const below = places.second[y] * LOW;
    const down = places.share[y];
    for (let x = 0; x < width; x++) {
      const left = places.first[x];
      const right = places.second[x];
      const across = places.share[x];
      const top = low[above + left] * (1 - across) + low[above + right] * across;
      const bottom = low[below + left] * (1 - across) + low[below + right] * across;
      data[y * width + x] = top * (1 - down) + bottom * down;
    }
  }
  return { data, width };
}

// Rows of pixels with `step` bytes -> rows of RGB, `target` long: Pillow's bilinear filter, which covers the whole of each
// new pixel where the picture shrinks
function shrinkRows(pixels, width, height, target, step) {
  const scale = width / target;
  const reach = Math.max(scale, 1);
  const out = new Uint8ClampedArray(target * height * 3);
  for (let x = 0; x < target; x++) {
    const centre = (x + 0.5) * scale;
    const start = Math.max(0, Math.floor(centre - reach + 0.5));
    const end = Math.min(width, Math.floor(centre + reach + 0.5));
    const weights = [];
    let sum = 0;
    for (let i = start; i < end; i++) {
      weights.push(Math.max(0, 1 - Math.abs((i + 0.5 - centre) / reach)));
      sum += weights[i - start];
    }
    for (let y = 0; y < height; y++) {
      let red = 0;
      let green = 0;
      let blue = 0;
      for (let i = start, place = (y * width + start) * step; i < end; i++, place += step) {
        const weight = weights[i - start] / sum;
        red += pixels[place] * weight;
        green += pixels[place + 1] * weight;
        blue += pixels[place + 2] * weight;
      }
      out.set([red, green, blue], (y * target + x) * 3);
    }
  }
  return out;
}

function turn(pixels, width, height) {
  const out = new Uint8ClampedArray(pixels.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < 3; channel++) {
        out[(x * height + y) * 3 + channel] = pixels[(y * width + x) * 3 + channel];
      }
    }
  }
  return out;
}
