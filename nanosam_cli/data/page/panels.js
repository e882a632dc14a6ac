// The lists beside the photo: photos, classes, objects; and the help.

import { KEYS, POINTER } from "./keys.js";

const find = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** The list of photos; only the rows that can be seen are made, so that ten thousand cost no more than twenty. */
export class PhotoList {
  constructor(choose) {
    this.root = find("photos");
    this.rows = element("div", { class: "rows" });
    this.root.replaceChildren(this.rows);
    this.choose = choose;
    this.photos = [];
    this.current = -1;
    this.height = matchMedia("(pointer: coarse)").matches ? 42 : 30; // CSS pixels of a row
    this.root.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.root);
  }

  show(photos, current) {
    const moved = current !== this.current;
    Object.assign(this, { photos, current });
    this.rows.style.height = `${photos.length * this.height}px`;
    const top = current * this.height;
    const hidden = top < this.root.scrollTop || top + this.height > this.root.scrollTop + this.root.clientHeight;
    if (moved && hidden) this.root.scrollTop = top - this.root.clientHeight / 2;
    const done = photos.filter((one) => one.done).length;
    find("progress").textContent = `${done} of ${photos.length} done`;
    this.draw();
  }

  draw() {
    const focused = this.rows.contains(document.activeElement) ? document.activeElement.dataset.place : null;
    const first = Math.max(0, Math.floor(this.root.scrollTop / this.height) - 2);
    const last = Math.min(this.photos.length, first + Math.ceil(this.root.clientHeight / this.height) + 5);
    this.rows.replaceChildren(...this.photos.slice(first, last).map((photo, offset) => this.row(photo, first + offset)));
    if (focused !== null) this.rows.querySelector(`[data-place="${focused}"]`)?.focus();
  }

  row(photo, place) {
    const mark = photo.unsaved ? "!" : photo.done ? "✓" : "";
    const words = photo.unsaved ? "not saved" : photo.done ? `done, ${photo.objects} objects` : "not done";
    const made = element(
      "button",
      {
        type: "button", class: "photo", title: photo.name, "data-place": place,
        "aria-current": place === this.current ? "true" : null, "aria-label": `${photo.name}, ${words}`,
        onclick: () => this.choose(place),
      },
      element("span", { class: "mark" }, mark),
      element("span", { class: "name" }, photo.name),
      element("span", { class: "count" }, photo.objects ? String(photo.objects) : ""),
    );
    Object.assign(made.style, { top: `${place * this.height}px`, height: `${this.height}px` });
    return made;
  }
}

export function showCategories(categories, current, choose) {
  find("categories").replaceChildren(...categories.map(({ id, name, colour }, place) => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = colour;
    return element(
      "button",
      { type: "button", class: "category", "aria-pressed": String(id === current), onclick: () => choose(id) },
      swatch, element("span", { class: "name" }, name), element("kbd", {}, place < 9 ? String(place + 1) : ""),
    );
  }));
}

export function showObjects(desk, categories, { open, remove }) {
  const rows = desk.scene.objects.map((object, place) => {
    const { name, colour } = categories.get(object.category) ?? { name: "?", colour: "#888888" };
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = colour;
    return element(
      "div", { class: "object", "aria-current": desk.hand?.of === object ? "true" : null },
      element("button", { type: "button", class: "open", onclick: () => open(object) },
        swatch, element("span", { class: "name" }, `${place + 1} ${name}`)),
      element("button", { type: "button", class: "remove", title: "Remove", "aria-label": `Remove object ${place + 1}`,
        onclick: () => remove(object) }, "×"),
    );
  });
  find("objects").replaceChildren(...rows);
  find("object-count").textContent = String(rows.length);
}

export function fillHelp() {
  const line = (keys, about) => element("tr", {}, element("td", {}, ...keys.flatMap((key) => [element("kbd", {}, key), " "])),
    element("td", {}, about));
  const tables = KEYS.map(([title, rows]) => element("section", {}, element("h3", {}, title), element("table", {},
    ...rows.filter((row) => row.about).map((row) => line(row.shown ? [row.shown] : row.keys, row.about)))));
  const pointer = element("section", {}, element("h3", {}, "Mouse, pen and finger"),
    element("table", {}, ...POINTER.map(([keys, about]) => line([keys], about))));
  find("help-tables").replaceChildren(pointer, ...tables);
}
