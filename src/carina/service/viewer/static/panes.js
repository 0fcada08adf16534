// What every page of slices does with its panes, whatever it draws on them: pictures, crosshair, pointer, wheel, keys.

import { LOGGED_OUT, sayLoggedOut } from "./words.js";

const WHEEL_STEP = 40;
const RETRY_MS = 1500;
const retries = new WeakMap(); // by pane: the timer that asks again for what is missing
const PARTS_OF_FORMS = "input, select, textarea, summary";

/** An index that lies in the volume; what is no number is 0. */
export function clipped(at, shape) {
  return at.map((value, axis) => Math.min(Math.max(Math.round(value) || 0, 0), shape[axis] - 1));
}

/** Whether there is a picture, be it that the next one is on its way: one that did not come has no box of its own. */
export function isShown(image) {
  const { width, height } = image.getBoundingClientRect();
  return Boolean(image.closest(".pane").dataset.shown) && width > 0 && height > 0;
}

/** Whether the pointer is on a picture, and not in the pane beside it. */
export function isOnPicture({ clientX, clientY }, image) {
  const { left, right, top, bottom } = image.getBoundingClientRect();
  return isShown(image) && clientX >= left && clientX <= right && clientY >= top && clientY <= bottom;
}

/** Shows what is wanted in a pane: one picture at a time, then the one that is wanted by now. Who scrolls fast skips. */
export async function keepShowing(pane, wanted, hooks) {
  const { source, onTrouble, onShown } = hooks;
  clearTimeout(retries.get(pane));
  pane.dataset.wanted = wanted;
  if (pane.dataset.drawing) return;
  pane.dataset.drawing = "yes";
  while (pane.dataset.wanted && pane.dataset.shown !== pane.dataset.wanted) {
    const next = pane.dataset.wanted;
    const image = pane.querySelector("img");
    let url = "";
    try {
      url = await source(next);
      image.src = url;
      await image.decode();
      pane.dataset.shown = next;
      onShown();
    } catch (error) {
      image.removeAttribute("src"); // another slice must not stand under this one's number
      pane.dataset.shown = "";
      const why = await whyNot(error, url);
      if (pane.dataset.wanted) onTrouble(why);
      if (pane.dataset.wanted !== next) continue;
      if (mayCome(why)) retries.set(pane, setTimeout(() => keepShowing(pane, pane.dataset.wanted, hooks), RETRY_MS));
      break; // else asked for again with the next move
    }
  }
  delete pane.dataset.drawing;
  if (!pane.dataset.wanted) showNothing(pane);
}

/** Leaves a pane without a picture: one that is on its way is not shown either. */
export function showNothing(pane) {
  clearTimeout(retries.get(pane));
  Object.assign(pane.dataset, { wanted: "", shown: "" });
  pane.querySelector("img").removeAttribute("src");
}

/** Calls when somebody comes back to the page: what was refused may come now, such as after a log-in in another tab. */
export function onReturn(deed) {
  addEventListener("focus", deed);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") deed();
  });
}

/** Whether the same picture can come without a move: its server is away or busy, or has come back by now. */
function mayCome({ status = 0 }) {
  return status < 400 || status >= 500;
}

/** What keeps a picture away: of one that it can't draw a browser says no more than that. */
async function whyNot(error, url) {
  if (!url || error.status !== undefined) return error;
  const answer = await fetch(url).catch(() => null);
  return notShown(answer, "it can't be drawn");
}

/** The error of a picture whose server gives no other answer than this one, or none. */
export function notShown(answer, otherwise = "") {
  const why = answer?.status === LOGGED_OUT ? "you are no longer logged in" : `the server answers ${answer?.status}`;
  const refused = answer?.ok ? otherwise : why;
  return Object.assign(new Error(answer ? refused : "the server does not answer"), { status: answer?.status ?? 0 });
}

/**
 * The line that says which planes could not be shown: it stays until they are, whatever else is said meanwhile. It leads
 * to the log-in where no other line of the page does.
 */
export class Troubles {
  constructor(line, { leadsToLogIn = false } = {}) {
    Object.assign(this, { line, leadsToLogIn, planes: new Map() });
  }

  /** What became of a plane: an error, or none. */
  tell(plane, error = null) {
    if (error) this.planes.set(plane, error);
    else if (!this.planes.delete(plane)) return;
    const errors = [...this.planes.values()];
    const names = [...this.planes.keys()].join(", ");
    const next = errors.some(mayCome) ? "It is asked for again until it comes." : "The next move tries again.";
    const words = `The ${names} ${errors.length === 1 ? "slice" : "slices"} could not be shown`;
    const isLoggedOut = errors.some((one) => one.status === LOGGED_OUT);
    if (isLoggedOut && this.leadsToLogIn) sayLoggedOut(this.line, `You are no longer logged in. ${words}.`);
    else this.#say(errors.length ? `${words} (${errors.at(-1).message}). ${next}` : "");
  }

  /** What is said already is not said again with each attempt. */
  #say(words) {
    if (this.line.textContent !== words) this.line.textContent = words;
  }
}

/** Keeps what lies over a pane's picture at its size: that of the cell around it can differ by some pixels. */
export function fitOver(pane) {
  const image = pane.querySelector("img");
  new ResizeObserver(() => {
    const { width, height } = image.getBoundingClientRect();
    for (const over of pane.querySelectorAll(".over")) Object.assign(over.style, { width: `${width}px`, height: `${height}px` });
  }).observe(image);
}

/** Where an index lies in a pane's picture: across and down, in percent. */
export function placeIn({ rows, columns, flipRows, flipColumns }, at, shape) {
  const share = (axis, flip) => {
    const part = (100 * (at[axis] + 0.5)) / shape[axis];
    return flip ? 100 - part : part;
  };
  return [share(columns, flipColumns), share(rows, flipRows)];
}

/** Puts the crosshair of a pane where a voxel lies. */
export function drawCross(pane, plane, at, shape) {
  const [across, down] = placeIn(plane, at, shape);
  const [upright, level] = pane.querySelectorAll(".cross line");
  for (const end of ["x1", "x2"]) upright.setAttribute(end, `${across}%`);
  for (const end of ["y1", "y2"]) level.setAttribute(end, `${down}%`);
}

/** The point under the pointer as an index, whole at the middle of a voxel, in the slice that is shown; `at` in none. */
export function pointUnder(event, image, { rows, columns, flipRows, flipColumns }, at, shape) {
  if (!isShown(image)) return [...at];
  const box = image.getBoundingClientRect();
  const found = [...at];
  const part = (share, axis, flip) => {
    const inside = Math.min(Math.max(share, 0), 0.999999);
    return (flip ? 1 - inside : inside) * shape[axis] - 0.5;
  };
  found[columns] = part((event.clientX - box.left) / box.width, columns, flipColumns);
  found[rows] = part((event.clientY - box.top) / box.height, rows, flipRows);
  return found;
}

/** The voxel under the pointer. */
export function voxelUnder(event, image, plane, at, shape) {
  return pointUnder(event, image, plane, at, shape).map((value, axis) =>
    [plane.rows, plane.columns].includes(axis) ? Math.floor(value + 0.5) : value);
}

/** The number of a lesion, whatever number is asked for: after the last comes the first. */
export function lesionNumber(wanted, count) {
  return ((((wanted - 1) % count) + count) % count) + 1;
}

/** Scrolls the page to a picture, where it is not in view. */
export function bringIntoView(picture) {
  const { top, bottom } = picture.getBoundingClientRect();
  const inView = Math.min(bottom, innerHeight) - Math.max(top, 0);
  if (inView < 0.9 * Math.min(bottom - top, innerHeight)) picture.scrollIntoView({ block: "center" });
}

/** Links to the run's other pages of slices lead to the place that is shown here. */
export function keepPlace(at) {
  for (const link of document.querySelectorAll("a[data-place]")) link.search = `?at=${at.join(",")}`;
}

/** Calls with whole slices while a wheel is turned over an area. */
export function onWheel(area, step) {
  let turned = 0;
  area.addEventListener("wheel", (event) => {
    event.preventDefault();
    turned += event.deltaY;
    const count = Math.trunc(turned / WHEEL_STEP);
    turned -= count * WHEEL_STEP;
    if (count) step(count);
  }, { passive: false });
}

/** The deed of a key, where it is one, no form takes it, and no browser does with Control, Alt or Command. */
export function deedOf(keys, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(PARTS_OF_FORMS)) return null;
  return keys[event.key] || null;
}
