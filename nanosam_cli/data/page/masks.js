// Masks: COCO's run-length codes, bitmaps cut to their box, and how they are painted.
//
// A run-length code {size: [height, width], counts} goes down the columns. Codes are never changed, so what is made of
// one is kept for as long as the code itself.

const bitmaps = new WeakMap();
const paintings = new WeakMap();

/** The run lengths of compressed counts: `rleFrString` of COCO's maskApi.c. */
export function runsOf(counts) {
  const runs = [];
  let number = 0, shift = 0;
  for (let place = 0; place < counts.length; place++) {
    const bits = counts.charCodeAt(place) - 48;
    number |= (bits & 31) << shift;
    shift += 5;
    if (bits & 32) continue;
    if (bits & 16) number |= -1 << shift;
    runs.push(number + (runs.length > 2 ? runs[runs.length - 2] : 0));
    number = shift = 0;
  }
  return runs;
}

/** The inverse of `runsOf`: `rleToString`. */
export function countsOf(runs) {
  let counts = "";
  runs.forEach((run, place) => {
    let number = place > 2 ? run - runs[place - 2] : run;
    for (let more = true; more;) {
      let bits = number & 31;
      number >>= 5;
      more = bits & 16 ? number !== -1 : number !== 0;
      if (more) bits |= 32;
      counts += String.fromCharCode(bits + 48);
    }
  });
  return counts;
}

/** A code -> {x, y, width, height, data, area}: rows of 0 and 1 within the mask's box; width 0 where it is empty. */
export function bitmapOf(rle) {
  if (!bitmaps.has(rle)) bitmaps.set(rle, decode(rle));
  return bitmaps.get(rle);
}

function decode({ size: [height], counts }) {
  const runs = runsOf(counts);
  let x0 = Infinity, x1 = -1, y0 = height, y1 = -1, at = 0, area = 0;
  runs.forEach((run, place) => {
    if (place % 2 && run) {
      const last = at + run - 1;
      const [left, right] = [Math.floor(at / height), Math.floor(last / height)];
      [x0, x1] = [Math.min(x0, left), Math.max(x1, right)];
      y0 = left < right ? 0 : Math.min(y0, at % height);
      y1 = left < right ? height - 1 : Math.max(y1, last % height);
      area += run;
    }
    at += run;
  });
  const width = Math.max(0, x1 - x0 + 1), rows = Math.max(0, y1 - y0 + 1);
  const data = new Uint8Array(width * rows);
  at = 0;
  runs.forEach((run, place) => {
    for (let end = at + run; place % 2 && at < end; at++) {
      data[(at % height - y0) * width + Math.floor(at / height) - x0] = 1;
    }
    if (place % 2 === 0) at += run;
  });
  return { x: width ? x0 : 0, y: width ? y0 : 0, width, height: rows, data, area };
}

/** Rows of 0 and 1 as large as the photo -> their code. */
export function encode(data, width, height) {
  const runs = [];
  let value = 0, run = 0;
  for (let x = 0; x < width; x++) {
    for (let at = x; at < data.length; at += width) {
      if (data[at] !== value) {
        runs.push(run);
        [value, run] = [data[at], 0];
      }
      run++;
    }
  }
  runs.push(run);
  return { size: [height, width], counts: countsOf(runs) };
}

/** A code, or null -> rows of 0 and 1 as large as the photo, a copy to draw in. */
export function wholeOf(rle, width, height) {
  const data = new Uint8Array(width * height);
  if (rle) {
    const part = bitmapOf(rle);
    for (let row = 0; row < part.height; row++) {
      data.set(part.data.subarray(row * part.width, (row + 1) * part.width), (part.y + row) * width + part.x);
    }
  }
  return data;
}

/** Whether a mask has the pixel that a place in the photo lies in. */
export function hasPlace(rle, x, y) {
  const part = bitmapOf(rle);
  const [column, row] = [Math.floor(x) - part.x, Math.floor(y) - part.y];
  const inside = column >= 0 && row >= 0 && column < part.width && row < part.height;
  return inside && part.data[row * part.width + column] === 1;
}

/** What paints a mask: a picture of its pixels in a colour, and its outline along their borders as a path. */
export function paintingOf(rle, colour) {
  let made = paintings.get(rle);
  if (!made) paintings.set(rle, made = { path: outline(bitmapOf(rle)), pictures: new Map() });
  if (!made.pictures.has(colour)) made.pictures.set(colour, picture(bitmapOf(rle), colour));
  return { path: made.path, picture: made.pictures.get(colour) };
}

function picture(part, colour) {
  if (!part.width) return null;
  const canvas = new OffscreenCanvas(part.width, part.height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(part.width, part.height);
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const value = new Uint8ClampedArray([red, green, blue, 255]);
  part.data.forEach((inside, at) => inside && pixels.data.set(value, at * 4));
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function outline({ x, y, width, height, data }) {
  const path = new Path2D();
  const at = (column, row) =>
    column >= 0 && row >= 0 && column < width && row < height && data[row * width + column] === 1;
  for (let row = 0; row <= height; row++) {
    for (let column = 0, start = -1; column <= width; column++) {
      const edge = column < width && at(column, row - 1) !== at(column, row);
      if (edge && start < 0) start = column;
      if (!edge && start >= 0) {
        path.moveTo(x + start, y + row);
        path.lineTo(x + column, y + row);
        start = -1;
      }
    }
  }
  for (let column = 0; column <= width; column++) {
    for (let row = 0, start = -1; row <= height; row++) {
      const edge = row < height && at(column - 1, row) !== at(column, row);
      if (edge && start < 0) start = row;
      if (!edge && start >= 0) {
        path.moveTo(x + column, y + start);
        path.lineTo(x + column, y + row);
        start = -1;
      }
    }
  }
  return path;
}

/** Set (or with `value` 0 clear) what lies within `radius` of a line through places; all in the photo's pixels. */
export function stroke(data, width, height, places, radius, value) {
  const dot = (x, y) => {
    for (let row = Math.max(0, Math.floor(y - radius)); row <= Math.min(height - 1, y + radius); row++) {
      const half = Math.sqrt(Math.max(0, radius ** 2 - (row + 0.5 - y) ** 2));
      const from = Math.max(0, Math.ceil(x - half - 0.5)), to = Math.min(width, Math.floor(x + half - 0.5) + 1);
      if (from < to) data.fill(value, row * width + from, row * width + to);
    }
  };
  places.forEach(([x, y], index) => {
    const [fromX, fromY] = places[Math.max(0, index - 1)];
    const steps = Math.max(1, Math.ceil(Math.hypot(x - fromX, y - fromY) / Math.max(1, radius / 2)));
    for (let step = 1; step <= steps; step++) {
      dot(fromX + ((x - fromX) * step) / steps, fromY + ((y - fromY) * step) / steps);
    }
  });
}
