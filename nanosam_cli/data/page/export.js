// The dialog that exports annotations as other tools' files.

import { askJson } from "./server.js";

const dialog = document.getElementById("export");

/** Ask which format, and write it. Resolves to words of what was written, or to null where nothing was wanted. */
export async function exportAsked() {
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((closed) => dialog.addEventListener("close", closed, { once: true }));
  if (dialog.returnValue !== "export") return null;
  const kind = new FormData(dialog.querySelector("form")).get("kind");
  const made = await askJson("POST", "/label/export", { kind });
  return [`${made.photos} photos with ${made.objects} objects are in ${made.folder}`, ...made.notes].join("; ");
}
