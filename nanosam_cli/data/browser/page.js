// The page: drop a photo, click, see the mask, save it. Nothing leaves the machine.

import { hasSimd, loadModel } from "./model.js";

const MEGAPIXELS = 40; // of a photo: its pixels alone take 160 MB, and a tab has a few of these at once
const DRAG = 4; // pixels of the screen that the pointer moves before a click becomes a box

const [canvas, said, file, save, clear] = ["photo", "said", "file", "save", "clear"].map((id) => document.getElementById(id));
const pen = canvas.getContext("2d", { willReadFrequently: true });
let model, photo, encoded, mask;
let points = [];
let box = null;
let from = null;
let work = Promise.resolve();

const say = (text) => (said.textContent = text);
const seconds = (start) => `${((performance.now() - start) / 1000).toFixed(2)} s`;

// One thing after the other, so that a fast hand never mixes two photos; an error is said, and the page goes on
function next(task) {
  work = work.then(task).catch((error) => say(`Error: ${error.message}`));
  return work;
}

async function open(chosen) {
  if (!chosen) return;
  say(`Reading ${chosen.name} ...`);
  const picture = await createImageBitmap(chosen).catch(() => {
    throw new Error(`${chosen.name} is no picture that this browser can read; give a JPEG, PNG or WebP`);
  });
  const { width, height } = picture;
  if (width * height > MEGAPIXELS * 1e6) {
    const size = Math.round((width * height) / 1e6);
    picture.close();
    throw new Error(`${chosen.name} has ${size} megapixels, and this page takes ${MEGAPIXELS}: make it smaller, or use \`nanosam segment\``);
  }
  Object.assign(canvas, { width, height });
  pen.drawImage(picture, 0, 0);
  [photo, encoded, mask, points, box] = [{ picture, name: chosen.name.replace(/\.[^.]*$/, "") }, null, null, [], null];
  save.disabled = clear.disabled = true;
  say("The model looks at the photo ...");
  await painted();
  const start = performance.now();
  encoded = await model.encode(pen.getImageData(0, 0, width, height).data, width, height);
  canvas.dataset.encoded = performance.now() - start;
  say(`${width} x ${height}, read in ${seconds(start)}. Click on a thing, or drag a box around it.`);
}

const painted = () => new Promise((done) => setTimeout(done, 20));

async function segment() {
  if (!encoded) return;
  const start = performance.now();
  mask = points.length || box ? await model.decode(encoded, points, box) : null;
  canvas.dataset.prompt = JSON.stringify({ points, box });
  canvas.dataset.decoded = performance.now() - start;
  draw();
  save.disabled = clear.disabled = !mask;
  const area = mask ? mask.reduce((sum, one) => sum + one, 0) : 0;
  say(mask ? `${area} pixels, in ${seconds(start)}` : "Click on a thing, or drag a box around it.");
}

function draw() {
  pen.drawImage(photo.picture, 0, 0);
  if (mask) {
    const shown = pen.getImageData(0, 0, canvas.width, canvas.height);
    mask.forEach((inside, i) => {
      if (inside) [shown.data[4 * i], shown.data[4 * i + 1]] = [shown.data[4 * i] * 0.5, shown.data[4 * i + 1] * 0.5 + 110];
    });
    pen.putImageData(shown, 0, 0);
  }
  const thick = Math.max(1, canvas.width / 400);
  pen.lineWidth = thick;
  pen.strokeStyle = "#ffd500";
  if (box) pen.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
  for (const [x, y, label] of points) {
    pen.fillStyle = label ? "#ffd500" : "#e0003c";
    pen.beginPath();
    pen.arc(x, y, 3 * thick, 0, 7);
    pen.fill();
  }
}

// A place on the screen -> in pixels of the photo
function place(event) {
  const area = canvas.getBoundingClientRect();
  const x = ((event.clientX - area.left) * canvas.width) / area.width;
  const y = ((event.clientY - area.top) * canvas.height) / area.height;
  return [Math.min(Math.max(x, 0), canvas.width - 0.01), Math.min(Math.max(y, 0), canvas.height - 0.01)];
}

canvas.addEventListener("pointerdown", (event) => {
  if (!encoded) return;
  from = { at: place(event), screen: [event.clientX, event.clientY] };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointerup", (event) => {
  if (!from) return;
  const [start, to] = [from.at, place(event)];
  const moved = Math.hypot(event.clientX - from.screen[0], event.clientY - from.screen[1]) > DRAG;
  from = null;
  if (moved && start[0] !== to[0] && start[1] !== to[1]) {
    box = [Math.min(start[0], to[0]), Math.min(start[1], to[1]), Math.max(start[0], to[0]), Math.max(start[1], to[1])];
  } else {
    points.push([...to, event.shiftKey || event.button === 2 ? 0 : 1]);
  }
  next(segment);
});
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
clear.addEventListener("click", () => {
  [points, box] = [[], null];
  next(segment);
});
save.addEventListener("click", async () => {
  const picture = new ImageData(canvas.width, canvas.height);
  const values = new Uint32Array(picture.data.buffer);
  mask.forEach((inside, i) => (values[i] = inside ? 0xffffffff : 0xff000000));
  const sheet = new OffscreenCanvas(canvas.width, canvas.height);
  sheet.getContext("2d").putImageData(picture, 0, 0);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await sheet.convertToBlob({ type: "image/png" }));
  link.download = `${photo.name}_mask.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
file.addEventListener("change", () => next(() => open(file.files[0])));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const dropped = event.dataTransfer.files[0];
  next(() => open(dropped));
});

next(async () => {
  if (!hasSimd()) {
    throw new Error("this browser has no WebAssembly SIMD: take Chrome 91, Firefox 89, Safari 16.4 or a later one");
  }
  model = await loadModel();
  file.disabled = false;
  say("Drop a photo here, or choose one. It stays on this machine.");
});
