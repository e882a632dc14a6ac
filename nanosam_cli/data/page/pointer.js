// Mouse, pen and fingers on the canvas, as clicks, boxes, strokes, moves and zooms.

const STILL = 4; // CSS pixels that a click may move

export class Pointer {
  /** `hears` has click(place, label, event), box(box, event), stroke(places), over(place), leave(), tool(), draft(). */
  constructor(view, hears) {
    Object.assign(this, { view, hears });
    this.fingers = new Map();
    this.space = false;
    this.drag = null; // {kind, start, last, places}
    const { canvas } = view;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.cancel(event));
    canvas.addEventListener("pointerleave", () => hears.leave());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    window.addEventListener("keyup", (event) => event.key === " " && this.hold(false));
    window.addEventListener("blur", () => this.hold(false));
  }

  /** Space is held, so that dragging moves the photo. */
  hold(space) {
    this.space = space;
    this.view.canvas.classList.toggle("moving", space);
  }

  /** The box that is being dragged, or the stroke that is being drawn. */
  get draft() {
    const { drag } = this;
    if (drag?.kind === "box" && drag.moved) return { box: this.box(drag) };
    return drag?.kind === "stroke" ? { places: drag.places } : {};
  }

  down(event) {
    const { view } = this;
    view.canvas.focus({ preventScroll: true });
    if (!view.image) return;
    view.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.fingers.size === 2) {
      this.drag = { kind: "pinch", span: this.span() };
      return;
    }
    const at = [event.clientX, event.clientY];
    const move = this.space || event.button === 1;
    const drawing = this.hears.tool() !== "clicks" && event.button === 0;
    const kind = move ? "move" : drawing ? "stroke" : "box";
    this.drag = { kind, start: at, last: at, moved: false, button: event.button, places: [view.place(...at)] };
    if (kind === "stroke") this.hears.draft();
  }

  move(event) {
    const { view, drag } = this;
    const at = [event.clientX, event.clientY];
    if (this.fingers.has(event.pointerId)) this.fingers.set(event.pointerId, at);
    if (!drag) {
      this.hears.over(view.place(...at));
      return;
    }
    if (drag.kind === "pinch") {
      this.pinch();
      return;
    }
    drag.moved ||= Math.hypot(at[0] - drag.start[0], at[1] - drag.start[1]) > STILL;
    if (drag.kind === "move") view.pan(at[0] - drag.last[0], at[1] - drag.last[1]);
    if (drag.kind === "stroke") drag.places.push(view.place(...at));
    drag.last = at;
    this.hears.draft();
  }

  up(event) {
    this.fingers.delete(event.pointerId);
    const { view, drag } = this;
    if (!drag || (drag.kind === "pinch" && this.fingers.size)) return;
    this.drag = null;
    if (drag.kind === "stroke") this.hears.stroke(drag.places);
    if (drag.kind === "box" && drag.moved && drag.button === 0) this.hears.box(this.box(drag), event);
    if (drag.kind === "box" && !drag.moved) {
      const place = view.place(...drag.start);
      if (view.has(place)) this.hears.click(place, drag.button === 2 || event.altKey ? 0 : 1, event);
    }
    this.hears.draft();
  }

  cancel(event) {
    this.fingers.delete(event.pointerId);
    this.drag = null;
    this.hears.draft();
  }

  wheel(event) {
    event.preventDefault();
    const edge = this.view.canvas.getBoundingClientRect();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    this.view.zoom(Math.exp(-event.deltaY * lines * 0.002), event.clientX - edge.left, event.clientY - edge.top);
  }

  box({ start, last }) {
    const [from, to] = [this.view.place(...start), this.view.place(...last)].map((place) => this.view.within(place));
    return [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
  }

  span() {
    const [one, other] = [...this.fingers.values()];
    const edge = this.view.canvas.getBoundingClientRect();
    return {
      length: Math.hypot(one[0] - other[0], one[1] - other[1]),
      x: (one[0] + other[0]) / 2 - edge.left,
      y: (one[1] + other[1]) / 2 - edge.top,
    };
  }

  pinch() {
    if (this.fingers.size < 2) return;
    const { drag } = this, now = this.span();
    this.view.pan(now.x - drag.span.x, now.y - drag.span.y);
    this.view.zoom(now.length / Math.max(1, drag.span.length), now.x, now.y);
    drag.span = now;
  }
}
