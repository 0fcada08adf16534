// The masks on a slice as they are painted: the chosen one filled, the others outlined; and what stays when one changes.

import { keep, recall } from "./kept.js";
import { drawOutline, sizeOf } from "./outlines.js";
import { MaskCopy } from "./strokes.js";

const TOOLS_KEY = "carina tools";
const FILL = 110;
const RETRY_MS = 1500;
const COLOURS = { lung: [86, 180, 233], lesion: [230, 159, 0] };

function word(name, alpha) {
  return new Uint32Array(new Uint8Array([...COLOURS[name], alpha]).buffer)[0];
}

/** How far voxels lie apart along each axis, in mm. */
export function spacingOf({ affine }) {
  return [0, 1, 2].map((axis) => Math.hypot(...[0, 1, 2].map((row) => affine[row][axis])));
}

/** Where the pixels of a plane's slice lie in the volume: `start`, and the way of a row and of a column. */
function viewOf({ shape, planes }, plane, at) {
  const strides = [shape[1] * shape[2], shape[2], 1];
  const { normal, rows, columns, flipRows, flipColumns } = planes[plane];
  const [height, width] = [shape[rows], shape[columns]];
  const start = at[normal] * strides[normal]
    + (flipRows ? (height - 1) * strides[rows] : 0) + (flipColumns ? (width - 1) * strides[columns] : 0);
  return { height, width, start, down: flipRows ? -strides[rows] : strides[rows], across: flipColumns ? -strides[columns] : strides[columns] };
}

/** A slice of a mask as it is shown, flat, row by row. */
function sliceOf({ height, width, start, down, across }, marks) {
  const shown = new Uint8Array(height * width);
  for (let row = 0, to = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1, to += 1) shown[to] = marks[start + row * down + column * across];
  }
  return shown;
}

function resized(canvas, [height, width]) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
}

/** Draws the slice that is shown of the mask that is painted into a canvas of a pixel for each voxel. */
export function drawFill(canvas, scene, plane, at, { mask, isHidden }) {
  const view = viewOf(scene, plane, at);
  const { height, width } = view;
  resized(canvas, [height, width]);
  const picture = new ImageData(width, height);
  const [pixels, colour] = [new Uint32Array(picture.data.buffer), word(scene.layer, FILL)];
  if (!isHidden) sliceOf(view, mask.marks).forEach((mark, place) => { if (mark) pixels[place] = colour; });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** Draws the outlines of masks that are not painted, copies by their names, as lines that are as thin on thick slices. */
export function drawOutlines(canvas, scene, plane, at, { others, isHidden }) {
  const { normal, rows, columns } = scene.planes[plane];
  const drawn = [at[normal], ...others.keys(), isHidden].join();
  if (canvas.dataset.drawn === drawn) return; // they stay as they were read
  canvas.dataset.drawn = drawn;
  const spacing_mm = spacingOf(scene);
  const view = viewOf(scene, plane, at);
  const [height, width] = sizeOf(view, [spacing_mm[rows], spacing_mm[columns]]);
  resized(canvas, [height, width]);
  const picture = new ImageData(width, height);
  for (const [name, other] of isHidden ? [] : others) drawOutline(picture, sliceOf(view, other.marks), view, COLOURS[name]);
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** How many voxels of a slice are marked. */
export function countMarks(scene, plane, at, marks) {
  const { height, width, start, down, across } = viewOf(scene, plane, at);
  let count = 0;
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) count += marks[start + row * down + column * across];
  }
  return count;
}

/**
 * Reads the masks that are not painted here, as they are painted by now; `onRead` is called after each, with null as
 * long as it can't be had: a server that is away is asked again until it is back.
 */
export async function readOthers(scene, onRead) {
  for (const name of scene.others) {
    for (let isAway = true; isAway; ) {
      const answer = await fetch(`${scene.base}/correct/${name}/mask.json`).catch(() => null);
      const told = answer?.ok ? await answer.json().catch(() => null) : null;
      const copy = told ? new MaskCopy(scene.shape) : null;
      copy?.reset(told.change.runs);
      onRead(name, copy);
      isAway = !copy && (!answer || answer.ok || answer.status >= 500);
      if (isAway) await new Promise((done) => setTimeout(done, RETRY_MS));
    }
  }
}

/** The tools as the mask before had them in this tab, which keeps them for the next. */
export function keepTools(form) {
  const kept = JSON.parse(recall("sessionStorage", TOOLS_KEY) ?? "{}");
  for (const field of form.querySelectorAll("select, input")) {
    if (field.name in kept) field.value = kept[field.name];
  }
  addEventListener("pagehide", () => {
    keep("sessionStorage", TOOLS_KEY, JSON.stringify(Object.fromEntries(new FormData(form))));
  });
}
