// The canvas: the photo, where it is on the screen, and what lies on it.

import { bitmapOf, paintingOf } from "./masks.js";

const LEAST = 0.02, MOST = 40; // screen pixels of a photo's pixel

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.image = null; // ImageBitmap
    this.scale = 1; // CSS pixels of a photo's pixel
    this.left = this.top = 0; // of the photo, in CSS pixels
    this.opacity = 0.45;
    this.filled = true;
    this.hidden = false;
    this.paint = () => {}; // draws in the photo's coordinates
    this.moved = () => {}; // another part of the photo is seen
    this.waiting = false;
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  show(image) {
    this.image?.close();
    this.image = image;
    this.fit();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    const first = this.canvas.width === 300 && this.canvas.height === 150;
    this.canvas.width = Math.max(1, Math.round(clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * ratio));
    if (first || this.fitted) this.fit();
    else this.draw();
  }

  /** The whole photo, as large as there is room. */
  fit() {
    if (!this.image) return this.draw();
    const { clientWidth, clientHeight } = this.canvas;
    this.scale = Math.min((clientWidth - 16) / this.image.width, (clientHeight - 16) / this.image.height);
    this.scale = Math.max(LEAST, Math.min(this.scale, 8));
    this.left = (clientWidth - this.image.width * this.scale) / 2;
    this.top = (clientHeight - this.image.height * this.scale) / 2;
    this.fitted = true;
    this.moved();
    this.draw();
  }

  /** Zoom by a factor, and keep the place under x, y (CSS pixels of the canvas) where it is. */
  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const scale = Math.max(LEAST, Math.min(MOST, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.moved();
    this.draw();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.fitted = false;
    this.moved();
    this.draw();
  }

  /** x0 y0 x1 y1 of what is seen of the photo, or null. */
  get seen() {
    if (!this.image) return null;
    const { clientWidth, clientHeight } = this.canvas, { width, height } = this.image;
    const [left, top] = [Math.max(0, -this.left / this.scale), Math.max(0, -this.top / this.scale)];
    const right = Math.min(width, (clientWidth - this.left) / this.scale);
    const bottom = Math.min(height, (clientHeight - this.top) / this.scale);
    return left < right && top < bottom ? [left, top, right, bottom] : null;
  }

  /** CSS pixels of the window -> x y in the photo. */
  place(clientX, clientY) {
    const edge = this.canvas.getBoundingClientRect();
    return [(clientX - edge.left - this.left) / this.scale, (clientY - edge.top - this.top) / this.scale];
  }

  has([x, y]) {
    return this.image !== null && x >= 0 && y >= 0 && x < this.image.width && y < this.image.height;
  }

  /** The nearest place that lies in the photo. */
  within([x, y]) {
    const most = 1 - 1e-3;
    return [
      Math.max(0, Math.min(x, this.image.width - most)),
      Math.max(0, Math.min(y, this.image.height - most)),
    ];
  }

  /** Draw before the screen is next shown. */
  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawNow();
    });
  }

  drawNow() {
    const { context, canvas } = this;
    const ratio = canvas.width / Math.max(1, canvas.clientWidth);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.image) return;
    context.setTransform(this.scale * ratio, 0, 0, this.scale * ratio, this.left * ratio, this.top * ratio);
    context.imageSmoothingEnabled = this.scale < 3; // large pixels are seen as they are
    context.drawImage(this.image, 0, 0);
    if (!this.hidden) this.paint();
  }

  /** A mask: filled, or its outline alone. */
  mask(rle, colour, { strong = false, dashed = false, faint = false, bare = false } = {}) {
    const { context } = this;
    const { path, picture } = paintingOf(rle, colour);
    if (!picture) return;
    if ((this.filled || faint) && !bare) {
      const { x, y } = bitmapOf(rle);
      context.globalAlpha = this.opacity * (faint ? 0.5 : 1);
      context.drawImage(picture, x, y);
      context.globalAlpha = 1;
    }
    context.strokeStyle = colour;
    context.lineWidth = (strong ? 3 : 1.5) / this.scale;
    context.setLineDash(dashed || faint ? [6 / this.scale, 4 / this.scale] : []);
    context.stroke(path);
    if (strong) {
      context.strokeStyle = "white";
      context.lineWidth = 1 / this.scale;
      context.stroke(path);
    }
    context.setLineDash([]);
  }

  point([x, y, label]) {
    const { context } = this;
    context.beginPath();
    context.arc(x, y, 6 / this.scale, 0, 2 * Math.PI);
    context.fillStyle = label ? "#28c850" : "#e63232";
    context.fill();
    context.strokeStyle = "white";
    context.lineWidth = 2 / this.scale;
    context.stroke();
    const arm = 3 / this.scale;
    context.beginPath();
    context.moveTo(x - arm, y);
    context.lineTo(x + arm, y);
    if (label) {
      context.moveTo(x, y - arm);
      context.lineTo(x, y + arm);
    }
    context.stroke();
  }

  box([x0, y0, x1, y1], colour) {
    const { context } = this;
    context.setLineDash([6 / this.scale, 4 / this.scale]);
    for (const [width, style] of [[3, "rgb(0 0 0 / 60%)"], [1.5, colour]]) {
      context.lineWidth = width / this.scale;
      context.strokeStyle = style;
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    context.setLineDash([]);
  }

  /** A line of a brush that is being drawn. */
  line(places, radius, colour) {
    const { context } = this;
    context.globalAlpha = 0.6;
    context.strokeStyle = colour;
    context.lineWidth = 2 * radius;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    places.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
    if (places.length === 1) context.lineTo(places[0][0] + 0.01, places[0][1]);
    context.stroke();
    context.globalAlpha = 1;
  }

  ring([x, y], radius) {
    const { context } = this;
    for (const [width, style] of [[3, "rgb(0 0 0 / 60%)"], [1.5, "white"]]) {
      context.lineWidth = width / this.scale;
      context.strokeStyle = style;
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  cross([x, y]) {
    const { context } = this;
    const arm = 12 / this.scale, gap = 3 / this.scale;
    for (const [width, style] of [[4, "black"], [2, "white"]]) {
      context.lineWidth = width / this.scale;
      context.strokeStyle = style;
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + dx * gap, y + dy * gap);
        context.lineTo(x + dx * arm, y + dy * arm);
      }
      context.stroke();
    }
  }
}
