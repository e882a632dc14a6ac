// The mask under the pointer, before any click: one question to the server at a time, of the last place alone.

export class Preview {
  /** `deskAt` gives the desk that may be asked about a place, else null; `changed` is told when there is another mask. */
  constructor(deskAt, changed, tell) {
    Object.assign(this, { deskAt, changed, tell });
    this.mask = null;
    this.wanted = null; // the place to ask about next
    this.asking = false;
  }

  clear() {
    this.mask = this.wanted = null;
  }

  async over(place) {
    this.wanted = place;
    if (this.asking) return;
    this.asking = true;
    while (this.wanted) {
      const at = this.wanted;
      this.wanted = null;
      this.mask = await this.maskAt(at);
      this.changed();
    }
    this.asking = false;
  }

  async maskAt(place) {
    const desk = this.deskAt(place);
    if (!desk) return null;
    try {
      const [found] = await desk.segment([{ points: [[...place, 1]] }]);
      return this.deskAt(place) === desk ? found.segmentation : null; // the pointer, or the person, has gone on
    } catch (error) {
      this.tell(error);
      return null;
    }
  }
}
