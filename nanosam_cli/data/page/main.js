// The labelling page: puts the parts together, and is the one place that knows all of them.

import { carry } from "./carry.js";
import { Desk } from "./desk.js";
import { exportAsked } from "./export.js";
import { actionOf } from "./keys.js";
import { element, fillHelp, PhotoList, showCategories, showObjects } from "./panels.js";
import { Pointer } from "./pointer.js";
import { Preview } from "./preview.js";
import { ask, askJson, Gone, onPresence } from "./server.js";
import { View } from "./view.js";

const STILL = 200; // ms without a move, after which what is seen is encoded from near, or the next photo ahead
const HELD = 8; // photos whose steps are still known when one comes back to them
const find = (id) => document.getElementById(id);

const page = {
  photos: [],
  categories: new Map(),
  category: null,
  place: -1,
  desk: null,
  desks: new Map(), // by photo
  tool: "clicks",
  takes: false, // whether a plain click takes away, as with Alt
  more: false, // whether clicks and boxes are of one more object, as with Shift
  cross: null,
  pointerAt: null,
  ahead: new Set(), // photos that were encoded before they were asked for
};

const view = new View(find("canvas"));
const list = new PhotoList((place) => go(place));
const preview = new Preview(idleDeskAt, () => view.draw(), tell);
const radius = () => Number(find("radius").value) / view.scale;

// what is said

function say(words, wrong = false) {
  find("status").textContent = words;
  find("status").classList.toggle("wrong", wrong);
}

function tell(error) {
  if (!(error instanceof Gone)) say(error.hint ? `${error.message} (${error.hint})` : error.message, true);
}

// the screen

/** The desk, where a click on a place would begin an object. */
function idleDeskAt(place) {
  const { desk } = page;
  const idle = desk?.whole.handle && !desk.hand && page.tool === "clicks" && (page.pointerAt || page.cross);
  return idle && view.has(place) && !desk.at([...desk.scene.offers, ...desk.scene.objects], place) ? desk : null;
}

function colourOf(category) {
  return page.categories.get(category)?.colour ?? "#888888";
}

view.paint = () => {
  const { desk } = page;
  if (!desk) return;
  const { objects, hand, offers } = desk.scene;
  const chosen = page.pointerAt && !hand ? desk.at(offers, page.pointerAt) : null;
  for (const one of offers) view.mask(one.rle, colourOf(one.category), { dashed: true, bare: one !== chosen });
  for (const one of objects) if (one !== hand?.of) view.mask(one.rle, colourOf(one.category));
  if (preview.mask && !hand) view.mask(preview.mask, colourOf(page.category), { faint: true });
  if (hand?.mask) view.mask(hand.mask, colourOf(hand.category), { strong: true });
  if (hand?.box) view.box(hand.box, colourOf(hand.category));
  hand?.points.forEach((point) => view.point(point));
  const { box, places } = pointer.draft;
  if (box) view.box(box, colourOf(hand?.category ?? page.category));
  if (places) view.line(places, radius(), page.tool === "brush" ? colourOf(hand?.category ?? page.category) : "#ffffff");
  if (page.tool !== "clicks" && page.pointerAt) view.ring(page.pointerAt, radius());
  if (page.cross) view.cross(page.cross);
};

let settling = 0;

view.moved = () => {
  clearTimeout(settling);
  settling = setTimeout(() => page.desk?.look(view.seen), STILL);
};

function refresh() {
  const { desk } = page;
  if (desk?.hand) preview.clear(); // it would come back, stale, when the hand is empty
  view.draw();
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === page.tool));
  }
  view.canvas.classList.toggle("drawing", page.tool !== "clicks");
  view.canvas.setAttribute("aria-busy", String(!desk || desk.busy));
  showCategories([...page.categories.values()], desk?.hand?.category ?? page.category, choose);
  if (!desk) return;
  const about = page.photos[page.place];
  Object.assign(about, { objects: desk.scene.objects.length, unsaved: desk.unsaved });
  if (!desk.unsaved && desk.saved.length) about.done = true;
  list.show(page.photos, page.place);
  showObjects(desk, page.categories, { open: (one) => desk.open(one), remove: (one) => desk.remove(one) });
  const { hand, offers } = desk.scene;
  for (const [does, can] of Object.entries({
    undo: desk.past.length, redo: desk.future.length, drop: hand || offers.length, accept: hand || offers.length,
  })) {
    document.querySelector(`[data-does="${does}"]`).disabled = !can;
  }
  find("saved").textContent = savedWords(desk);
  find("saved").classList.toggle("wrong", (desk.unsaved && desk.fault !== null) || desk.trouble !== null);
}

function savedWords({ unsaved, fault, trouble }) {
  if (unsaved) return fault ? "not saved" : "saving";
  return trouble ? `kept in the journal: ${trouble}` : `saved in ${page.file}`;
}

// photos

async function load() {
  const state = await askJson("GET", "/label/state");
  page.photos = state.photos;
  page.file = state.file;
  setCategories(state.categories);
  if (state.trouble) say(state.trouble, true);
}

function setCategories(categories) {
  page.categories = new Map(categories.map((one) => [one.id, one]));
  page.category ??= categories[0].id;
}

async function go(place) {
  if (place < 0 || place >= page.photos.length) return;
  const { name } = page.photos[place];
  Object.assign(page, { place, cross: null, desk: null });
  preview.clear();
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  document.title = `${name} - nanosam label`;
  find("title").textContent = name;
  find("empty").hidden = true;
  list.show(page.photos, place);
  refresh();
  try {
    const shown = picture(name);
    shown.catch(() => {}); // what is wrong with the photo, the next line says in better words
    const about = await askJson("GET", "/label/photo", { name });
    const image = await shown;
    if (page.place !== place) return image.close(); // somebody was faster
    if (image.width !== about.width || image.height !== about.height) {
      throw new Error(`the browser shows ${name} as ${image.width}x${image.height}, not ${about.width}x${about.height}`);
    }
    view.show(image);
    page.desk = page.desks.get(name) ?? new Desk(about, refresh, say);
    keep(name, page.desk);
    refresh();
    await begin(page.desk);
    encodeNext(place);
  } catch (error) {
    if (page.place !== place) return;
    if (!page.desk) {
      view.show(null);
      find("empty").textContent = error instanceof Gone ? "The photo is not here yet." : error.message;
      find("empty").hidden = false;
    }
    tell(error);
  }
}

async function picture(name) {
  return createImageBitmap(await (await ask("GET", "/label/pixels", { name })).blob());
}

/** The desks of the last photos, and of all that have something in hand. */
function keep(name, desk) {
  page.desks.delete(name);
  page.desks.set(name, desk);
  for (const [old, held] of page.desks) {
    if (page.desks.size <= HELD) break;
    if (!held.inHand) page.desks.delete(old);
  }
}

/** Encode, and put on offer what another model has found. */
async function begin(desk) {
  say("Reading the photo ...");
  await desk.encoded();
  const { found } = desk;
  if (found.length) await desk.offerLater(() => offersOf(desk, found));
  desk.found = [];
  const offers = desk.scene.offers.length;
  if (page.desk === desk && !desk.hand) {
    say(offers ? `${offers} on offer: click on one to take it, Enter takes all.` : "Click on an object, or drag a box around it.");
  }
  refresh();
}

async function offersOf(desk, found) {
  const prompts = found.map(({ prompt: { box, points } }) => (box ? { box, points } : { points }));
  const masks = await desk.segment(prompts);
  return masks.map((one) => ({ category: found[one.object].category_id, rle: one.segmentation }));
}

/** The next photo, once nothing is waited for: who clicks at once has the machine to themselves. */
async function encodeNext(place) {
  do await new Promise((done) => setTimeout(done, STILL)); while (page.desk?.busy);
  const next = page.photos[place + 1]?.name;
  if (page.place !== place || !next || page.ahead.has(next)) return;
  page.ahead.add(next);
  await ask("POST", "/api/v1/encode", { path: next }).catch(() => page.ahead.delete(next)); // it is told when it is shown
}

// what is done

function choose(category) {
  page.category = category;
  page.desk?.classify(category);
  refresh();
}

function useTool(tool) {
  page.tool = tool;
  preview.clear();
  refresh();
}

function moveCross(event, dx, dy) {
  if (!view.image) return;
  const by = event?.shiftKey ? 1 : 12 / view.scale;
  page.cross ??= [view.image.width / 2, view.image.height / 2];
  page.cross = view.within([page.cross[0] + dx * by, page.cross[1] + dy * by]);
  preview.over(page.cross);
  view.draw();
}

function clickAt(place, label, anew = false) {
  const { desk } = page;
  if (!desk) return;
  preview.clear();
  if (!desk.hand && !anew) {
    const offer = desk.at(desk.scene.offers, place);
    if (offer) return label ? desk.take(offer) : desk.step({ offers: desk.scene.offers.filter((one) => one !== offer) });
    const object = desk.at(desk.scene.objects, place);
    if (object) return desk.open(object);
  }
  desk.click(place, label, page.category);
}

async function propose() {
  const { desk } = page;
  if (!desk) return;
  say("Looking for everything, which takes some seconds ...");
  const { category } = page;
  const found = await desk.offerLater(async () => {
    const answer = await askJson("POST", "/api/v1/everything", { path: desk.name });
    return answer.masks.map((one) => ({ category, rle: one.segmentation }));
  });
  say(`${found.length} on offer: click on one to take it, Enter takes all, Esc drops them.`);
}

async function carryOn() {
  const { desk, place } = page;
  if (!desk) return;
  if (desk.hand) return say("Accept or drop the object in hand first.", true);
  if (desk.scene.offers.some((one) => one.track)) desk.takeAll();
  if (!desk.scene.objects.length) return say("Accept an object first, then carry on.", true);
  if (place + 1 >= page.photos.length) return say("This is the last frame.");
  await desk.save();
  if (desk.unsaved) return;
  await go(place + 1);
  if (page.place === place + 1 && page.desk) say(await carry(desk, page.desk));
}

async function done() {
  const { desk } = page;
  if (!desk) return;
  if (desk.hand) return say("Accept or drop the object in hand first.", true);
  if (!desk.scene.objects.length) desk.saved = null; // so that a photo without objects is written too
  await desk.save();
  if (desk.unsaved) return;
  page.photos[page.place].done = true;
  const later = page.photos.findIndex((one, place) => place > page.place && !one.done);
  const next = later >= 0 ? later : page.photos.findIndex((one) => !one.done);
  refresh();
  if (next >= 0) go(next);
  else say("All photos are done.");
}

async function exportDone() {
  const words = await exportAsked();
  view.canvas.focus();
  if (words) say(words);
}

const DOES = {
  accept: () => page.desk?.accept(),
  drop: () => page.desk?.drop(),
  remove: () => page.desk?.remove(),
  undo: () => page.desk?.undo(),
  redo: () => page.desk?.redo(),
  category: (event) => {
    const chosen = [...page.categories.keys()][Number(event.key) - 1];
    if (chosen !== undefined) choose(chosen);
  },
  newCategory: () => find("category-name").focus(),
  propose,
  carryOn,
  next: () => go(page.place + 1),
  previous: () => go(page.place - 1),
  done,
  clicks: () => useTool("clicks"),
  brush: () => useTool("brush"),
  eraser: () => useTool("eraser"),
  takeMode: () => press("take-mode", (page.takes = !page.takes)),
  moreMode: () => press("more-mode", (page.more = !page.more)),
  smaller: () => resizeBrush(-4),
  larger: () => resizeBrush(4),
  zoomIn: () => view.zoom(1.25),
  zoomOut: () => view.zoom(0.8),
  fit: () => view.fit(),
  outline: () => {
    view.filled = !view.filled;
    press("outline", !view.filled);
    view.draw();
  },
  hide: () => {
    view.hidden = !view.hidden;
    view.draw();
  },
  help: () => find("help").showModal(),
  export: exportDone,
  left: (event) => moveCross(event, -1, 0),
  right: (event) => moveCross(event, 1, 0),
  up: (event) => moveCross(event, 0, -1),
  down: (event) => moveCross(event, 0, 1),
  addHere: () => page.cross && clickAt(page.cross, 1),
  takeHere: () => page.cross && clickAt(page.cross, 0),
};

function press(id, down) {
  find(id).setAttribute("aria-pressed", String(down));
}

function resizeBrush(by) {
  find("radius").value = Number(find("radius").value) + by;
  view.draw();
}

async function act(does, event) {
  try {
    await DOES[does](event);
  } catch (error) {
    tell(error);
  }
}

// the pointer

const pointer = new Pointer(view, {
  tool: () => page.tool,
  draft: () => view.draw(),
  leave: () => {
    page.pointerAt = null;
    preview.clear();
    view.draw();
  },
  over: (place) => {
    page.pointerAt = place;
    preview.over(place);
    if (page.tool !== "clicks") view.draw();
  },
  click: (place, label, event) => clickAt(place, page.takes ? 0 : label, event.shiftKey || page.more),
  box: (box, event) => {
    if (event.shiftKey || page.more) act("offerBox", box);
    else page.desk?.frame(box, page.category);
  },
  stroke: (places) => page.desk?.draw(places, radius(), page.tool === "brush" ? 1 : 0, page.category),
});

DOES.offerBox = async (box) => {
  const { desk, category } = page;
  await desk?.offerLater(async () => {
    const [found] = await desk.segment([{ box }]);
    return [{ category, rle: found.segmentation }];
  });
};

// keys, buttons, and the server's coming and going

document.addEventListener("keydown", (event) => {
  const { target } = event;
  const typing = target.matches("input:not([type='range'])") || document.querySelector("dialog[open]");
  if (typing) {
    if (event.key === "Escape" && target.matches("input")) view.canvas.focus();
    return;
  }
  const onControl = target.matches("button, input");
  if (event.key === " " && !onControl) {
    event.preventDefault();
    pointer.hold(true);
    return;
  }
  const does = actionOf(event);
  const own = onControl && (event.key === "Enter" || event.key.startsWith("Arrow")); // a button's and a slider's
  if (!does || own) return;
  event.preventDefault();
  act(does, event);
});

// a button that was pressed by mouse or finger gives the keys back to the photo
document.querySelector("main").addEventListener("click", (event) => event.detail && giveBack(event));
document.querySelector("header").addEventListener("click", (event) => event.detail && giveBack(event));

function giveBack(event) {
  if (event.target.closest("button") && !event.target.closest("form") && !document.querySelector("dialog[open]")) view.canvas.focus();
}

for (const button of document.querySelectorAll("[data-does]")) {
  button.addEventListener("click", (event) => act(button.dataset.does, event));
}
find("opacity").addEventListener("input", (event) => {
  view.opacity = event.target.value / 100;
  view.draw();
});
find("radius").addEventListener("input", () => view.draw());
find("new-category").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = find("category-name");
  try {
    const categories = await askJson("POST", "/label/categories", {}, { name: field.value });
    setCategories(categories);
    choose(categories.at(-1).id);
    field.value = "";
    view.canvas.focus();
  } catch (error) {
    tell(error);
  }
});

onPresence(async (there) => {
  find("gone").hidden = there;
  if (!there) return;
  say("The server is back.");
  for (const desk of page.desks.values()) {
    desk.forget();
    desk.resume();
  }
  view.moved();
  if (!page.desk && page.place >= 0) go(page.place);
});

window.addEventListener("beforeunload", (event) => {
  if ([...page.desks.values()].some((desk) => desk.unsaved)) event.preventDefault();
});

async function start() {
  fillHelp();
  try {
    await load();
    const named = page.photos.findIndex((one) => one.name === decodeURIComponent(location.hash.slice(1)));
    const open = page.photos.findIndex((one) => !one.done);
    await go(named >= 0 ? named : Math.max(0, open));
    view.canvas.focus();
  } catch (error) {
    find("empty").replaceChildren(element("strong", {}, error.message));
    find("empty").hidden = false;
    tell(error);
  }
}

start();
