// One photo on the desk: its objects, the object in hand, what is on offer, and every step that can be undone.
//
// A scene {objects, hand, offers} is never changed; a step puts another in its place. An object is
// {id, category, rle, track}; the hand is {of, category, box, points, base, mask}: `of` is the object that was opened
// again, `base` the mask that is given to the model as a prompt. Only what comes from the server later (its mask, an
// object's id) is filled in where it belongs.

import { extentOf, Look, longest, windowAround } from "./looks.js";
import { encode, hasPlace, bitmapOf, stroke, wholeOf } from "./masks.js";
import { askJson, Gone, Refusal } from "./server.js";

const OFFERS = Symbol("offers");
const EMPTY = { objects: [], hand: null, offers: [] };

export class Desk {
  /** `about` is the server's answer to /label/photo; `changed` is told after every step, `said` gets words. */
  constructor(about, changed, said) {
    Object.assign(this, { name: about.name, width: about.width, height: about.height, changed, said });
    this.revision = about.revision;
    const objects = about.objects.map(objectOf);
    this.scene = { ...EMPTY, objects };
    this.found = about.found;
    this.past = [];
    this.future = [];
    this.whole = new Look(about.name, null);
    this.near = null; // the part that is looked at, where the photo is seen larger than the model sees it
    this.asked = 0; // requests for masks that are on their way
    this.eager = null; // the scene's hand, or OFFERS, accepted before the masks were here
    this.saved = objects;
    this.saving = null;
    this.fault = null; // why the last save was refused
    this.trouble = null; // why the file could not be written lately, though the journal has everything
  }

  get hand() {
    return this.scene.hand;
  }

  /** Whether something of the server is waited for. */
  get busy() {
    return this.asked > 0 || !this.whole.handle || (this.near !== null && !this.near.handle);
  }

  get unsaved() {
    return this.saved !== this.scene.objects;
  }

  /** What a photo that is left must be kept for. */
  get inHand() {
    return this.hand !== null || this.unsaved;
  }

  step(change) {
    this.past.push(this.scene);
    this.future = [];
    this.put({ ...this.scene, ...change });
  }

  put(scene) {
    this.scene = scene;
    this.changed();
    if (this.unsaved) this.save();
  }

  undo() {
    if (!this.past.length) return;
    this.future.push(this.scene);
    this.put(this.past.pop());
  }

  redo() {
    if (!this.future.length) return;
    this.past.push(this.scene);
    this.put(this.future.pop());
  }

  // the object in hand

  click(place, label, category) {
    const hand = this.hand ?? { of: null, category, box: null, points: [], base: null, mask: null };
    if (!label && !hand.mask && !hand.points.length) return this.said("Click on the object first, then take away.");
    this.ask({ ...hand, points: [...hand.points, [...place, label]] });
  }

  frame(box, category) {
    const hand = this.hand ?? { of: null, category, points: [], base: null, mask: null };
    const kept = hand.points.filter(([x, y]) => x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3]);
    this.ask({ ...hand, box, points: hand.box ? kept : hand.points });
  }

  /** Open an accepted object again; its mask is the first prompt. */
  open(object) {
    const { category, rle } = object;
    this.step({ hand: { of: object, category, box: null, points: [], base: rle, mask: rle } });
  }

  /** Draw (or with `value` 0 rub out) along places. */
  draw(places, radius, value, category) {
    const hand = this.hand ?? { of: null, category, box: null, points: [], base: null, mask: null };
    const data = wholeOf(hand.mask, this.width, this.height);
    stroke(data, this.width, this.height, places, radius, value);
    const mask = encode(data, this.width, this.height);
    this.step({ hand: { ...hand, box: null, points: [], base: mask, mask } });
  }

  classify(category) {
    if (this.hand) this.step({ hand: { ...this.hand, category } });
  }

  accept() {
    const { hand, objects } = this.scene;
    if (this.asked) {
      this.eager = hand ?? OFFERS;
      return;
    }
    if (!hand) return this.takeAll();
    if (!hand.mask || !bitmapOf(hand.mask).area) return this.said("There is no mask to accept.");
    const made = { id: hand.of?.id ?? null, category: hand.category, rle: hand.mask, track: hand.of?.track ?? null };
    const others = objects.includes(hand.of) ? objects.map((one) => (one === hand.of ? made : one)) : [...objects, made];
    this.step({ objects: others, hand: null });
  }

  /** Drop the hand, else the offers. */
  drop() {
    if (this.hand) this.step({ hand: null });
    else if (this.scene.offers.length) this.step({ offers: [] });
  }

  remove(object = this.hand?.of) {
    if (object) this.step({ objects: this.scene.objects.filter((one) => one !== object), hand: null });
    else if (this.hand) this.step({ hand: null });
  }

  // what is on offer

  /** Those of a track take the place of what was on offer of it. */
  offer(offers) {
    const tracks = new Set(offers.map((one) => one.track).filter(Boolean));
    const kept = this.scene.offers.filter((one) => !tracks.has(one.track));
    this.step({ offers: [...kept, ...offers] });
  }

  take(offer) {
    const objects = [...this.scene.objects, acceptedOf(offer)];
    this.step({ objects, offers: this.scene.offers.filter((one) => one !== offer) });
  }

  takeAll() {
    const { objects, offers } = this.scene;
    if (offers.length) this.step({ objects: [...objects, ...offers.map(acceptedOf)], offers: [] });
  }

  /** The smallest of some objects that has a place. */
  at(objects, [x, y]) {
    const there = objects.filter((one) => one !== this.hand?.of && hasPlace(one.rle, x, y));
    return there.sort((one, other) => bitmapOf(one.rle).area - bitmapOf(other.rle).area)[0];
  }

  // the server

  /** The whole photo is at hand. */
  async encoded() {
    await this.whole.encoded();
  }

  /** This much of the photo is seen: x0 y0 x1 y1. From near, its window is encoded anew. */
  async look(seen) {
    const window = seen && windowAround(seen, this.width, this.height);
    if (window && this.near?.shows(seen) && longest(this.near.window) <= 2 * longest(window)) return;
    const near = window && new Look(this.name, window);
    this.near = near;
    this.changed();
    try {
      await near?.encoded();
    } catch (error) {
      if (this.near === near) this.near = null; // the whole photo will do
      this.tell(error);
    }
    this.changed();
  }

  /** The server has forgotten everything. */
  forget() {
    this.whole.handle = null;
    if (this.near) this.near.handle = null;
  }

  /**
   * The masks of some prompts {box, points, mask}, of which `found` was the mask so far. What is seen whole in the part
   * that is looked at is segmented there, and what goes on beyond it in the whole photo.
   */
  async segment(objects, found = null) {
    const { near } = this;
    const inside = near && objects.every((one) => near.shows(extentOf(one, found)));
    const masks = await this.segmentIn(inside ? near : this.whole, objects);
    if (!inside || !masks.some((one) => near.cuts(one.segmentation))) return masks;
    return this.segmentIn(this.whole, objects);
  }

  /** An embedding that fell out is made again. */
  async segmentIn(look, objects, again = true) {
    const handle = await look.encoded();
    try {
      const answer = await askJson("POST", "/api/v1/segment", {}, { handle, objects });
      return answer.masks;
    } catch (error) {
      if (!again || !(error instanceof Refusal) || ![404, 410].includes(error.status)) throw error;
      look.handle = null;
      return this.segmentIn(look, objects, false);
    }
  }

  /** Take a hand with other prompts, and fill in its mask when it comes. */
  ask(hand) {
    this.step({ hand });
    return this.fill(hand);
  }

  async fill(hand) {
    this.begin();
    try {
      const [found] = await this.segment([promptOf(hand)], hand.mask);
      Object.assign(hand, { mask: found.segmentation, late: false });
      this.said(`${found.area.toLocaleString("en")} pixels, predicted IoU ${found.predicted_iou.toFixed(2)}`);
    } catch (error) {
      hand.late = error instanceof Gone; // asked for again when the server is back
      this.eager = null;
      this.tell(error);
    } finally {
      this.end();
    }
  }

  /** Put on offer what `find` finds: a promise of {category, rle} objects. */
  async offerLater(find) {
    this.begin();
    try {
      const found = await find();
      this.offer(found);
      return found;
    } catch (error) {
      this.eager = null;
      throw error;
    } finally {
      this.end();
    }
  }

  begin() {
    this.asked++;
    this.changed();
  }

  /** What was accepted too early is accepted once nothing is on its way. */
  end() {
    this.asked--;
    this.changed();
    const { eager, hand } = this;
    if (this.asked || !eager) return;
    this.eager = null;
    if (eager === OFFERS ? !hand : eager === hand && hand.mask) this.accept();
  }

  /** Ask again for the mask that the server was gone for. */
  resume() {
    if (this.hand?.late) this.fill(this.hand);
    if (this.unsaved) this.save();
  }

  /** Keep the objects; one save at a time, and the last state wins. */
  async save() {
    if (this.saving) return this.saving;
    this.saving = this.saveAll().finally(() => {
      this.saving = null;
      this.changed();
    });
    return this.saving;
  }

  async saveAll() {
    while (this.unsaved) {
      const objects = this.scene.objects;
      const body = objects.map(({ id, category, rle, track }) => (
        { id, category_id: category, segmentation: rle, track_id: track }
      ));
      try {
        const kept = await askJson("PUT", "/label/photo", { name: this.name }, { revision: this.revision, objects: body });
        objects.forEach((one, place) => (one.id = kept.ids[place]));
        this.revision = kept.revision;
        this.saved = objects;
        this.heed(kept.trouble);
        this.fault = null;
      } catch (error) {
        this.fault = error instanceof Gone ? null : error;
        this.tell(error);
        return;
      }
    }
  }

  /** The server tries to write the file again and again, so what it says of it is asked for until all is well. */
  heed(trouble) {
    const fresh = trouble !== null && this.trouble === null;
    this.trouble = trouble;
    this.changed();
    if (fresh) this.watchTrouble();
  }

  async watchTrouble() {
    while (this.trouble !== null) {
      await new Promise((done) => setTimeout(done, 1000));
      const { trouble } = await askJson("GET", "/label/file").catch(() => this);
      this.heed(trouble);
    }
  }

  tell(error) {
    if (error instanceof Gone) return; // the banner says so
    this.said(error.hint ? `${error.message} (${error.hint})` : error.message, true);
  }
}

/** An object as the server has it -> as it is here. */
export function objectOf({ id, category_id: category, segmentation: rle, track_id: track }) {
  return { id, category, rle, track };
}

function acceptedOf({ category, rle, track = null }) {
  return { id: null, category, rle, track };
}

function promptOf({ box, points, base }) {
  const prompt = {};
  if (box) prompt.box = box;
  if (points.length) prompt.points = points;
  if (base) prompt.mask = base;
  return prompt;
}
