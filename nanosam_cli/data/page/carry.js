// Carrying on: what is accepted on a frame is taken to the next one by the tracker.

import { objectOf } from "./desk.js";
import { askJson } from "./server.js";

/** Offer a frame's objects on the desk of another. Resolves to words of what was found. */
export async function carry(from, to) {
  const found = await to.offerLater(async () => {
    const answer = await askJson("POST", "/label/carry", { name: from.name, onto: to.name });
    from.revision = answer.revision; // the objects have got tracks
    return Object.assign(answer.objects.map(objectOf), { lost: answer.lost });
  });
  const lost = found.lost ? `, ${found.lost} lost` : "";
  return `${found.length} carried on${lost}: Enter takes them, a click takes one, F goes on.`;
}
