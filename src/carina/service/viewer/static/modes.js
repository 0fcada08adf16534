// From slices that the server draws to the volume in the browser and back. The volume is there from the build alone;
// where it is missing, or the browser has no WebGL 2, the buttons say why.

import { LOGGED_OUT, sayLoggedOut } from "./words.js";

const NOT_BUILT = "This installation has no volume viewer: install the wheel, or run scripts/build_viewer.py (needs npm).";
const TURN_DEGREES = 10;
const MASKS = ["lung", "lesion"];

const panes = document.getElementById("panes");
const host = document.getElementById("volume");
const buttons = [...document.querySelectorAll("#modes button")];

let opening = null;
let shown = "slices";

/** The voxel at a place (mm, LPS), and the place of a voxel. */
function placesOf({ affine }) {
  const columns = [0, 1, 2].map((axis) => [0, 1, 2].map((row) => affine[row][axis]));
  const origin = [0, 1, 2].map((row) => affine[row][3]);
  return {
    toPlace: (at) => origin.map((start, row) => start + at.reduce((sum, index, axis) => sum + index * affine[row][axis], 0)),
    toVoxel: (place) => columns.map((column) => { // the axes are orthogonal
      const length = column.reduce((sum, value) => sum + value * value, 0);
      return column.reduce((sum, value, row) => sum + value * (place[row] - origin[row]), 0) / length;
    }),
  };
}

function say(text) {
  host.querySelector("p").textContent = text;
}

function urls(scene, size) {
  const folder = `${scene.base}/volume/${size}`;
  return { ct: `${folder}/ct.nii${size === "quarter" ? ".gz" : ""}`, marks: scene.marked ? `${folder}/marks.nii.gz` : "" };
}

function drawingOf(form) {
  return Object.fromEntries(new FormData(form));
}

function cover(drawing, mask) {
  return { off: 0, outline: 1, fill: Number(drawing.opacity) / 100 }[drawing[mask]];
}

function windowOf(scene, name) {
  return scene.windows[name] ?? name.split(",").map(Number);
}

/** The bytes of an image, fetched once, whatever is made of them. */
async function fetched(url) {
  if (!url) return null;
  const answer = await fetch(url);
  if (!answer.ok) throw Object.assign(new Error(`the server answers ${answer.status}`), { status: answer.status });
  return { url, bytes: await answer.arrayBuffer() };
}

/** A scene's images. A whole CT is left to NiiVue, which would keep its bytes beside its voxels. */
async function fetchedOf(scene, size) {
  const { ct, marks } = urls(scene, size);
  const [ofCt, ofMarks] = await Promise.all([size === "full" ? { url: ct } : fetched(ct), fetched(marks)]);
  return { ct: ofCt, marks: ofMarks };
}

async function open({ scene, state, form, moveTo }) {
  let size = scene.quartered ? "quarter" : "full";
  const first = fetchedOf(scene, size); // while NiiVue starts
  first.catch(() => {}); // told where it is waited for
  const { VolumeView, drawsBySoftware } = await import("./built/volume.js");
  const { toPlace, toVoxel } = placesOf(scene);
  const canvas = host.querySelector("canvas");
  const view = new VolumeView(canvas, (place) => moveTo(toVoxel(place)));

  const load = async (wanted, coming) => {
    await view.load(await coming);
    size = wanted;
    host.dataset.size = wanted;
    say(wanted === "full" ? "Full resolution." : "A quarter of the resolution.");
  };
  const grow = async () => {
    grown.hidden = true;
    say("Loading the full resolution ...");
    await load("full", fetchedOf(scene, "full"));
  };
  const dress = () => {
    const drawing = drawingOf(form);
    view.setWindow(windowOf(scene, drawing.window));
    for (const mask of MASKS) view.setCover(mask, cover(drawing, mask), { isOutlined: drawing[mask] === "outline" });
  };
  const grown = document.createElement("button");
  grown.type = "button";
  grown.className = "grown";
  grown.textContent = "Full resolution";
  grown.hidden = true;
  grown.addEventListener("click", grow);
  host.append(grown);

  document.addEventListener("carina-moved", ({ detail }) => {
    const there = toVoxel(view.place);
    if (there.some((value, axis) => Math.round(value) !== detail[axis])) view.moveTo(toPlace(detail));
  });
  document.addEventListener("carina-drawing", dress);
  dress();
  view.moveTo(toPlace(state.at));
  await load(size, first);
  canvas.addEventListener("keydown", (event) => {
    const turn = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!turn || !view.isSolid) return;
    event.preventDefault();
    event.stopPropagation();
    view.turn(TURN_DEGREES * turn[0], TURN_DEGREES * turn[1]);
  });
  return { view, grow, offer: () => { grown.hidden = size === "full"; }, isSlow: () => drawsBySoftware(), isWhole: () => size === "full" };
}

/** Loads the quarter without showing it, so that the first look at the volume takes no time. */
export function prepare(context) {
  if (!context.scene.built) return;
  opening ??= open(context).catch((error) => { opening = null; throw error; });
}

/** Shows `slices`, `volume` or `solid`. */
export async function showVolume(wanted, context) {
  if (wanted !== "slices" && !context.scene.built) return;
  shown = wanted;
  panes.classList.toggle("other", wanted !== "slices");
  host.hidden = wanted === "slices";
  document.dispatchEvent(new CustomEvent("carina-mode", { detail: wanted }));
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.mode === wanted));
  if (wanted === "slices") return;
  if (!host.dataset.size) say("Loading a quarter of the resolution ...");
  try {
    prepare(context);
    const opened = await opening;
    if (shown !== wanted) return;
    opened.view.show(wanted === "solid");
    opened.view.setSolid(host.querySelector("select").value);
    host.dataset.mode = wanted;
    host.querySelector("label").hidden = wanted !== "solid";
    host.querySelector("canvas").focus({ preventScroll: true });
    if (opened.isWhole()) return;
    if (opened.isSlow() || wanted === "solid") opened.offer();
    else await opened.grow();
  } catch (error) {
    console.debug(error);
    if (error.status === LOGGED_OUT) sayLoggedOut(host.querySelector("p"), "You are no longer logged in, so the volume can't be shown.");
    else say(`The volume can't be shown: ${error.message}.`);
  }
}

/** Makes the buttons work, or say why they can't. */
export function wire(context) {
  document.getElementById("modes").hidden = false;
  for (const button of buttons) {
    button.addEventListener("click", () => showVolume(button.dataset.mode, context));
    if (button.dataset.mode !== "slices" && !context.scene.built) {
      button.disabled = true;
      button.title = NOT_BUILT;
    }
  }
  if (!context.scene.built) {
    document.getElementById("no-volume").textContent = NOT_BUILT;
    document.getElementById("no-volume").hidden = false;
  }
  host.querySelector("select").addEventListener("change", async (event) => (await opening).view.setSolid(event.target.value));
}
