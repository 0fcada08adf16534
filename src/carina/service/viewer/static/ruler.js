// The distance between two points of the volume, in mm, whatever way its voxels lie: by pointer in a picture, or by key
// between two places of the crosshair. It is drawn in every pane, dashed where it leaves the slice that is shown.

import { placeIn } from "./panes.js";

const SAID_MS = 250;
const MINUS = "\u2212"; // as the line of the place

/** The place of an index in patient space, x y z in mm (LPS). */
export function placeMm(affine, at) {
  return [0, 1, 2].map((row) => at.reduce((sum, index, axis) => sum + index * affine[row][axis], affine[row][3]));
}

/** The distance between two indices in mm. */
export function distanceMm(affine, from, to) {
  const [start, end] = [placeMm(affine, from), placeMm(affine, to)];
  return Math.hypot(...start.map((value, row) => end[row] - value));
}

function placeWords(affine, at) {
  return placeMm(affine, at).map((value, row) => `${"xyz"[row]} ${value.toFixed(1).replace("-", MINUS)}`).join(" ");
}

/** A ruler over the panes of a scene; `said` is the line that says its length. */
export class Ruler {
  constructor(scene, panes, said) {
    Object.assign(this, { scene, panes, said, from: null, to: null, isFixed: false, saying: 0 });
  }

  /** Whether the far end follows the crosshair. */
  get isFollowing() {
    return this.from !== null && !this.isFixed;
  }

  /** By pointer: from where it was pressed. */
  begin(at) {
    Object.assign(this, { from: at, to: at, isFixed: true });
  }

  /** By key: from the crosshair, then to it, then anew. */
  press(at) {
    if (this.isFollowing) Object.assign(this, { to: at, isFixed: true });
    else Object.assign(this, { from: at, to: at, isFixed: false });
  }

  stretch(at) {
    this.to = at;
  }

  clear() {
    Object.assign(this, { from: null, to: null, isFixed: false });
  }

  /** Draws it over the slices through a voxel. */
  draw(at) {
    for (const [name, pane] of this.panes) this.drawIn(pane, this.scene.planes[name], at);
    clearTimeout(this.saying);
    this.saying = setTimeout(() => { this.said.textContent = this.words(); }, SAID_MS);
  }

  drawIn(pane, plane, at) {
    const mark = pane.querySelector(".ruler");
    mark.classList.toggle("drawn", this.from !== null);
    if (this.from === null) return;
    const ends = [this.from, this.to];
    const [[x1, y1], [x2, y2]] = ends.map((end) => placeIn(plane, end, this.scene.shape));
    const line = mark.querySelector("line");
    for (const [name, value] of Object.entries({ x1, y1, x2, y2 })) line.setAttribute(name, `${value}%`);
    const isHere = ends.every((end) => Math.round(end[plane.normal]) === at[plane.normal]);
    mark.classList.toggle("away", !isHere);
    const label = mark.querySelector("text");
    label.setAttribute("x", `${Math.min((x1 + x2) / 2, 85)}%`);
    label.setAttribute("y", `${Math.max((y1 + y2) / 2 - 1, 5)}%`);
    label.textContent = `${this.lengthMm.toFixed(1)} mm`;
  }

  get lengthMm() {
    return distanceMm(this.scene.affine, this.from, this.to);
  }

  words() {
    if (this.from === null) return "";
    const { affine } = this.scene;
    const more = this.isFixed ? "" : " M sets its end, Escape takes it away.";
    return `Ruler: ${this.lengthMm.toFixed(1)} mm, from ${placeWords(affine, this.from)} to ${placeWords(affine, this.to)} mm.${more}`;
  }
}
