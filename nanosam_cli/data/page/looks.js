// What was encoded of a photo: all of it, and the part that is looked at from near, so that small things are sharp.

import { bitmapOf } from "./masks.js";
import { askJson } from "./server.js";

const LEAST_GAIN = 1.5; // how many times larger than in the whole photo a window must show things

/** One embedding; `window` is x0 y0 x1 y1 in whole pixels, or null for the whole photo. */
export class Look {
  constructor(name, window) {
    Object.assign(this, { name, window, handle: null, encoding: null });
  }

  /** The handle, made where there is none yet. */
  async encoded() {
    if (this.handle) return this.handle;
    const query = { path: this.name, ...(this.window && { window: this.window.join(",") }) };
    this.encoding ??= askJson("POST", "/api/v1/encode", query).finally(() => (this.encoding = null));
    this.handle = (await this.encoding).handle;
    return this.handle;
  }

  /** Whether all of x0 y0 x1 y1 is in it. */
  shows([x0, y0, x1, y1]) {
    if (!this.window) return true;
    const [left, top, right, bottom] = this.window;
    return left <= x0 && top <= y0 && x1 <= right && y1 <= bottom;
  }

  /** Whether a mask may go on beyond it: it reaches a side of the window that is no side of the photo. */
  cuts(rle) {
    const { x, y, width, height } = bitmapOf(rle);
    if (!this.window || !width) return false;
    const [left, top, right, bottom] = this.window, [rows, columns] = rle.size;
    return (left > 0 && x <= left) || (top > 0 && y <= top)
      || (right < columns && x + width >= right) || (bottom < rows && y + height >= bottom);
  }
}

/** The window to encode for what is `seen` of a photo, twice as long; null where it would gain nothing. */
export function windowAround([x0, y0, x1, y1], width, height) {
  const [across, down] = [(x1 - x0) / 2, (y1 - y0) / 2];
  const window = [
    Math.max(0, Math.floor(x0 - across)), Math.max(0, Math.floor(y0 - down)),
    Math.min(width, Math.ceil(x1 + across)), Math.min(height, Math.ceil(y1 + down)),
  ];
  return longest(window) * LEAST_GAIN <= Math.max(width, height) ? window : null;
}

export const longest = ([x0, y0, x1, y1]) => Math.max(x1 - x0, y1 - y0);

/** x0 y0 x1 y1 of all that is known of an object: its box, its clicks and its masks; null of nothing. */
export function extentOf({ box, points = [], mask }, found = null) {
  const parts = points.map(([x, y]) => [x, y, x + 1e-3, y + 1e-3]); // a click on the far side is beyond it
  if (box) parts.push(box);
  for (const rle of [mask, found]) {
    const { x, y, width, height } = rle ? bitmapOf(rle) : { width: 0 };
    if (width) parts.push([x, y, x + width, y + height]);
  }
  if (!parts.length) return null;
  const least = (place) => Math.min(...parts.map((one) => one[place]));
  const most = (place) => Math.max(...parts.map((one) => one[place]));
  return [least(0), least(1), most(2), most(3)];
}
