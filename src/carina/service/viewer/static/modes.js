// From slices that the server draws to the volume in the browser and back. The volume is there from the build alone;
// where it is missing, or the browser has no WebGL 2, the buttons say why.

import { LOGGED_OUT, sayLoggedOut } from "./words.js";

const NOT_BUILT = "This installation has no volume viewer: install the wheel, or run scripts/build_viewer.py (needs npm).";
const TURN_DEGREES = 10;
const MASKS = ["lung", "lesion"];
const NOT_FOUND = 404;
// What 3D shows: what the canvas is called, and of those with an image of their own what is said while it is made,
// when it is shown, and where the server has none.
const SOLIDS = {
  bone: { named: "Bones, lungs and lesions" },
  airways: {
    named: "Airways and lesions",
    making: "Looking for the airways ...",
    made: "Trachea and bronchi, as far as they could be followed.",
    missing: "No airways are shown: no trachea with lungs below it was found in this scan.",
  },
  lungs: {
    named: "What is inside the lungs, and lesions",
    making: "Cutting out the lungs ...",
    made: "Inside the lungs: vessels and disease; the outer 2.5 mm only where a lesion is marked.",
    missing: "Nothing is shown: this run marked no lungs.",
  },
};

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

/** The image of a solid with its marks; null where the server has none of this scan. */
async function fetchedSolid(scene, name) {
  const folder = `${scene.base}/volume/solid`;
  try {
    const [ct, marks] = await Promise.all([fetched(`${folder}/${name}.nii.gz`), fetched(`${folder}/marks.nii.gz`)]);
    return { ct, marks };
  } catch (error) {
    if (error.status === NOT_FOUND) return null;
    throw error;
  }
}

async function open({ scene, state, form, moveTo }) {
  let size = scene.quartered ? "quarter" : "full";
  const first = fetchedOf(scene, size); // while NiiVue starts
  first.catch(() => {}); // told where it is waited for
  const { VolumeView, drawsBySoftware } = await import("./built/volume.js");
  const { toPlace, toVoxel } = placesOf(scene);
  const canvas = host.querySelector("canvas");
  const view = new VolumeView(canvas, (place) => moveTo(toVoxel(place)));

  const missing = new Set();
  let canGrow = false;
  let last = Promise.resolve();
  const inTurn = (step) => { // images are loaded one set at a time
    last = last.catch(() => {}).then(step);
    return last;
  };
  const sayOf = () => {
    const solid = view.isSolid && SOLIDS[view.solid];
    if (solid?.making) say(view.has(view.solid) ? solid.made : solid.missing);
    else say(`${size === "full" ? "Full resolution." : "A quarter of the resolution."} ${view.isSolid ? scene.none : ""}`.trim());
    canvas.setAttribute("aria-label", `${solid ? `${solid.named} in 3D` : "The volume in three planes"}; the lines below say what is shown and what is at the crosshair`);
    grown.hidden = size === "full" || !canGrow || Boolean(solid?.making);
    host.dataset.solid = solid ? view.solid : "";
  };
  const load = async (wanted, coming) => {
    await view.load(await coming);
    size = wanted;
    host.dataset.size = wanted;
    sayOf();
  };
  const setSolid = (name) => inTurn(async () => {
    if (SOLIDS[name].making && !view.has(name) && !missing.has(name)) {
      host.dataset.solid = "";
      grown.hidden = true;
      say(SOLIDS[name].making);
      const images = await fetchedSolid(scene, name);
      if (images) await view.load(images, name);
      else missing.add(name);
    }
    view.setSolid(name);
    sayOf();
  });
  const grow = () => inTurn(async () => {
    grown.hidden = true;
    say("Loading the full resolution ...");
    await load("full", fetchedOf(scene, "full"));
  });
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
  const offer = () => { canGrow = true; sayOf(); };
  return { view, grow, setSolid, sayOf, offer, isSlow: () => drawsBySoftware(), isWhole: () => size === "full" };
}

function sayTrouble(error) {
  console.debug(error);
  if (error.status === LOGGED_OUT) sayLoggedOut(host.querySelector("p"), "You are no longer logged in, so the volume can't be shown.");
  else say(`The volume can't be shown: ${error.message}.`);
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
    host.dataset.mode = wanted;
    host.querySelector("label").hidden = wanted !== "solid";
    host.querySelector("canvas").focus({ preventScroll: true });
    if (wanted === "solid") await opened.setSolid(host.querySelector("select").value);
    else opened.sayOf();
    if (opened.isWhole()) return;
    if (opened.isSlow() || wanted === "solid") opened.offer();
    else await opened.grow();
  } catch (error) {
    sayTrouble(error);
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
  host.querySelector("select").addEventListener("change", async (event) => {
    try {
      await (await opening).setSolid(event.target.value);
    } catch (error) {
      sayTrouble(error);
    }
  });
}
