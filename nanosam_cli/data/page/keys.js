// Every key of the page: what it does, and the help that `?` shows.

export const KEYS = [
  ["Objects", [
    { keys: ["Enter"], about: "Accept the object in hand, else all that is on offer", does: "accept" },
    { keys: ["Escape"], about: "Drop it, else what is on offer", does: "drop" },
    { keys: ["Delete", "Backspace"], about: "Remove the object in hand", does: "remove" },
    { keys: ["Ctrl+Z"], about: "Undo", does: "undo" },
    { keys: ["Ctrl+Shift+Z", "Ctrl+Y"], about: "Redo", does: "redo" },
    { keys: ["1", "2", "3", "4", "5", "6", "7", "8", "9"], shown: "1 - 9", about: "Choose a class", does: "category" },
    { keys: ["N"], about: "A new class", does: "newCategory" },
    { keys: ["P"], about: "Propose: everything in the photo, to take or leave", does: "propose" },
  ]],
  ["Photos", [
    { keys: ["PageDown", "]"], about: "Next photo", does: "next" },
    { keys: ["PageUp", "["], about: "Previous photo", does: "previous" },
    { keys: ["F"], about: "Carry on: what is accepted, to the next frame of a video", does: "carryOn" },
    { keys: ["D"], about: "Done, with what there is; on to the next that is not", does: "done" },
  ]],
  ["Tools", [
    { keys: ["V"], about: "Clicks and boxes", does: "clicks" },
    { keys: ["B"], about: "Brush", does: "brush" },
    { keys: ["E"], about: "Eraser", does: "eraser" },
    { keys: [","], about: "Smaller brush", does: "smaller" },
    { keys: ["."], about: "Larger brush", does: "larger" },
  ]],
  ["View", [
    { keys: ["+", "="], about: "Zoom in (or the wheel)", does: "zoomIn" },
    { keys: ["-"], about: "Zoom out", does: "zoomOut" },
    { keys: ["0"], about: "The whole photo", does: "fit" },
    { keys: ["O"], about: "Filled masks, or outlines", does: "outline" },
    { keys: ["H"], about: "Hide and show the masks", does: "hide" },
    { keys: ["?"], about: "This help", does: "help" },
  ]],
  ["On the photo, by keys", [
    { keys: ["ArrowLeft"], shown: "Arrows", about: "Move the cross; with Shift by one pixel", does: "left" },
    { keys: ["ArrowRight"], does: "right" },
    { keys: ["ArrowUp"], does: "up" },
    { keys: ["ArrowDown"], does: "down" },
    { keys: ["C"], about: "Click where the cross is", does: "addHere" },
    { keys: ["X"], about: "Take away where the cross is", does: "takeHere" },
  ]],
];

export const POINTER = [
  ["Click, tap", "On the object; on an accepted one: open it again"],
  ["Right or Alt click", "Not on the object (the button −)"],
  ["Drag", "A box around an object"],
  ["Shift + drag", "A box of one more object, on offer (the button +)"],
  ["Shift + click", "A new object, even on an accepted one"],
  ["Wheel, two fingers", "Zoom"],
  ["Space + drag, two fingers", "Move the photo"],
];

const BY_KEY = new Map(KEYS.flatMap(([, rows]) => rows.flatMap((row) => row.keys.map((key) => [key.toLowerCase(), row]))));

/** The action that a key event means, if any. */
export function actionOf(event) {
  if (event.altKey) return null;
  const control = event.ctrlKey || event.metaKey;
  const shift = control && event.shiftKey ? "shift+" : "";
  return BY_KEY.get(`${control ? "ctrl+" : ""}${shift}${event.key.toLowerCase()}`)?.does ?? null;
}
