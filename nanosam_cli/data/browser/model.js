// The two ONNX files on onnxruntime-web: a photo's pixels to an embedding, points and a box to a mask.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { Frame } from "./geometry.js";

// The smallest module with a SIMD instruction; a browser without SIMD refuses it
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

export function hasSimd() {
  return typeof WebAssembly === "object" && WebAssembly.validate(new Uint8Array(SIMD));
}

export async function loadModel() {
  const facts = await (await get("model.json")).json();
  ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send
  ort.env.wasm.wasmBinary = await unzipped(await get("ort-wasm-simd-threaded.wasm.gz"));
  const [encoder, decoder] = await Promise.all(
    ["encoder.onnx", "decoder.onnx"].map(async (name) => {
      const bytes = new Uint8Array(await (await get(name)).arrayBuffer());
      return ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    }),
  );
  return new Model(facts, encoder, decoder);
}

async function get(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} is missing on this server (${response.status}): copy the whole folder`);
  return response;
}

// Some servers unzip a .gz by themselves; a zipped file begins with 1f 8b
async function unzipped(response) {
  const bytes = new Uint8Array(await response.arrayBuffer());
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes.buffer;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

class Model {
  constructor(facts, encoder, decoder) {
    Object.assign(this, { facts, encoder, decoder });
  }

  // RGBA bytes -> what `decode` takes
  async encode(rgba, width, height) {
    const { image_size: side, mean, std } = this.facts;
    const frame = new Frame(width, height, side);
    const image = new ort.Tensor("float32", frame.input(rgba, mean, std), [1, 3, side, side]);
    const { image_embeddings: embedding } = await this.encoder.run({ image });
    return { frame, embedding };
  }

  // points [x, y, label] and a box [x0, y0, x1, y1] or null, in pixels of the photo -> one byte a pixel
  async decode({ frame, embedding }, points, box) {
    const corners = box ? [[box[0], box[1], 2], [box[2], box[3], 3]] : [];
    const real = [...points, ...corners];
    const padded = box ? real : [...real, [0, 0, -1]];
    const coords = padded.flatMap(([x, y, label]) => (label === -1 ? [0, 0] : frame.point([x, y])));
    const found = await this.decoder.run({
      image_embeddings: embedding,
      point_coords: new ort.Tensor("float32", coords, [1, padded.length, 2]),
      point_labels: new ort.Tensor("float32", padded.map((point) => point[2]), [1, padded.length]),
      mask_input: new ort.Tensor("float32", new Float32Array(256 * 256), [1, 1, 256, 256]),
      has_mask_input: new ort.Tensor("float32", [0], [1]),
    });
    const ious = found.iou_predictions.data;
    const chosen = real.length === 1 || ious.length !== 4 ? best(ious) : 0;
    return frame.mask(found.low_res_masks.data.subarray(chosen * 65536, (chosen + 1) * 65536));
  }
}

// Of four masks the first is for clear prompts; the others are readings of a single point
function best(ious) {
  let chosen = ious.length === 4 ? 1 : 0;
  for (let i = chosen + 1; i < ious.length; i++) if (ious[i] > ious[chosen]) chosen = i;
  return chosen;
}
