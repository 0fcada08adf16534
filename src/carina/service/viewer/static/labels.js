// The masks on a slice as they are painted: the chosen one filled, the others outlined; and what stays when one changes.

import { keep, recall } from "./kept.js";
import { MaskCopy } from "./strokes.js";

const TOOLS_KEY = "carina tools";
const FILL = 110;
const OUTLINE = 230;
const COLOURS = { lung: [86, 180, 233], lesion: [230, 159, 0] };

function word(name, alpha) {
  return new Uint32Array(new Uint8Array([...COLOURS[name], alpha]).buffer)[0];
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

function drawMask(pixels, { height, width, start, down, across }, marks, colour, isFilled) {
  for (let row = 0; row < height; row += 1) {
    const isBorder = row === 0 || row === height - 1;
    for (let column = 0; column < width; column += 1) {
      const place = start + row * down + column * across;
      if (marks[place] && (isFilled || isBorder || column === 0 || column === width - 1
        || !(marks[place - down] && marks[place + down] && marks[place - across] && marks[place + across]))) {
        pixels[row * width + column] = colour;
      }
    }
  }
}

/** Draws a slice's masks into a canvas of a pixel for each voxel; `others` are copies of masks by their names. */
export function drawMasks(canvas, scene, plane, at, { mask, others, isHidden }) {
  const view = viewOf(scene, plane, at);
  const { height, width } = view;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const picture = new ImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  if (!isHidden) {
    drawMask(pixels, view, mask.marks, word(scene.layer, FILL), true);
    for (const [name, other] of others) drawMask(pixels, view, other.marks, word(name, OUTLINE), false);
  }
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

/** Reads the masks that are not painted here, as they are painted by now; `onRead` is called after each. */
export async function readOthers(scene, onRead) {
  for (const name of scene.others) {
    const answer = await fetch(`${scene.base}/correct/${name}/mask.json`).catch(() => null);
    const copy = answer?.ok ? new MaskCopy(scene.shape) : null;
    copy?.reset((await answer.json()).change.runs);
    onRead(name, copy);
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
