// Painting on slices that the server draws: every voxel of the series' own grid, in three planes, by pointer or keys.

import { keep, recall } from "./kept.js";
import { countMarks, drawFill, drawOutlines, keepTools, readOthers, spacingOf } from "./labels.js";
import { bringIntoView, clipped, deedOf, drawCross, fitOver, isOnPicture, isShown, keepPlace, keepShowing, lesionNumber, onReturn, onWheel, Troubles, voxelUnder } from "./panes.js";
import { MaskCopy, Saver, alone, runsOf } from "./strokes.js";
import { SHUT_OUT, sayLoggedOut, sayOpenAnew, sentence } from "./words.js";

const scene = JSON.parse(document.getElementById("scene").textContent);
const form = document.getElementById("tools");
const place = document.getElementById("place");
const status = document.getElementById("saved");
const said = document.getElementById("said");
const rejecting = document.getElementById("rejecting");
const troubles = new Troubles(document.getElementById("trouble"));
const panes = new Map([...document.querySelectorAll("[data-plane]")].map((pane) => [pane.dataset.plane, pane]));
const planes = [...panes.keys()];
const reader = document.getElementById("reader");
const STRIDES = [scene.shape[1] * scene.shape[2], scene.shape[2], 1];
const SETTLED_MS = 180;
const RETRY_MS = 1500;
const PAGE = 10;
const WATCH_MS = 3000;
const READER_KEY = "carina reader";
const ELSEWHERE = "This mask is open in another window of this browser: painting begins here when that one is closed.";
const OTHER_UNREAD = "could not be read";
const NOTHING_TO_FINISH = "Finish waits until the mask is changed.";
const SERIES_GONE = "Nothing can be finished: the series of this run is gone.";
const HOW_SEEN_AGAIN = "log in as who painted them, or ask whoever administers the node whether the job was moved to another project, or you were taken out of its.";

const spacing = spacingOf(scene);
const mask = new MaskCopy(scene.shape);
const saver = new Saver({
  url: `${scene.base}/correct/${scene.layer}`,
  sha256: scene.sha256,
  mask,
  reader: painterHere,
  owner: reader.dataset.fixed ? reader.value : "",
  underway: () => stroke,
  onChange: told,
});
const visited = scene.lesions.findIndex((at) => at.every((value, axis) => value === scene.at[axis])) + 1;
const labels = new Map([...document.querySelectorAll("[data-label]")].map((link) => [link.dataset.label, link]));
const others = new Map(); // copies of the masks that are not painted here, once they are read
const state = { at: [...scene.at], plane: planes[0], visited, isPenDown: false, isAlone: false, isHidden: false, next: "", isLeaving: false, wasRefused: false, refusal: "", refusedOn: "", greyed: "", whyNotFinish: "" };
let stroke = null; // { plane, value, places: Set }
let settling = 0;

function tool() {
  return form.elements.tool.value;
}

// ---- what is shown

function paint(plane) {
  const [fill, outlines] = panes.get(plane).querySelectorAll("canvas");
  drawFill(fill, scene, plane, state.at, { mask, isHidden: state.isHidden });
  drawOutlines(outlines, scene, plane, state.at, { others, isHidden: state.isHidden });
}

function draw(plane) {
  const pane = panes.get(plane);
  const index = state.at[scene.planes[plane].normal];
  pane.querySelector("input").value = index;
  pane.querySelector(".index").textContent = index; // a screen reader has it of the slider
  paint(plane);
  return keepShowing(pane, `${index}.png?window=${form.elements.window.value}&overlay=none`, {
    source: (wanted) => `${scene.base}/slice/${plane}/${wanted}`,
    onTrouble: (error) => troubles.tell(plane, error),
    onShown: () => {
      troubles.tell(plane);
      if (state.refusal) told(); // it may have been refused for want of this
    },
  });
}

function cross(plane) {
  drawCross(panes.get(plane), scene.planes[plane], state.at, scene.shape);
}

function moveTo(at) {
  document.getElementById("outside")?.remove();
  const before = state.at;
  state.at = clipped(at, scene.shape);
  for (const plane of planes) {
    const { normal } = scene.planes[plane];
    if (state.at[normal] !== before[normal]) draw(plane);
    cross(plane);
  }
  settleSoon();
}

function settleSoon() {
  clearTimeout(settling);
  settling = setTimeout(settle, SETTLED_MS);
}

function flat(at) {
  return at.reduce((sum, index, axis) => sum + index * STRIDES[axis], 0);
}

// What is shown, in words, once the user has come to rest.
async function settle() {
  const at = state.at.join("/");
  keepPlace(state.at);
  history.replaceState(null, "", `?at=${state.at.join(",")}`);
  const answer = await fetch(`${scene.base}/at/${at}.json`).catch(() => null);
  if (answer) saver.noteLogIn(answer);
  if (at !== state.at.join("/")) return;
  if (!answer?.ok) {
    sayUnknown();
    if (!answer || answer.status >= 500) settling = setTimeout(settle, RETRY_MS); // until the server is back
    return;
  }
  const there = await answer.json();
  const here = flat(state.at);
  const marks = [[scene.layer, mask], ...others].map(([name, one]) => `${one.marks[here] ? "marked" : "not marked"} as ${name}`);
  place.textContent = `${there.place.split(" mm")[0]} mm, ${marks.join(", ")}.`;
  for (const plane of planes) {
    const [what] = there.slices[plane].split(". ");
    panes.get(plane).querySelector("img").alt = `${what}. ${countMarks(scene, plane, state.at, mask.marks)} voxels marked as ${scene.layer} in this slice.`;
  }
}

/** What was said of another place must not stand here. */
function sayUnknown() {
  place.textContent = "What is here is not known.";
  for (const plane of planes) panes.get(plane).querySelector("img").alt = "";
}

/** Says how it stands; what is said already stays as it is, with the focus on its link. */
function say(words) {
  const why = saver.isLoggedOut ? "You are no longer logged in." : saver.isShutOut ? SHUT_OUT : saver.ofAnother;
  const all = why ? `${why} ${words}` : words;
  if (status.dataset.words === all) return;
  status.dataset.words = all;
  if (why === saver.ofAnother && why) sayOpenAnew(status, all);
  else if (why) sayLoggedOut(status, all);
  else status.textContent = all;
}

/** What came of a deed, as the server says it. */
function sayOfDeed(text) {
  said.textContent = sentence(text);
}

function told() {
  if (state.wasRefused && !saver.isRefused) said.textContent = ""; // that nobody was logged in does not hold any more
  if (state.refusal && !whyNotPainting() && !whyNotOn(state.refusedOn)) sayOfDeed(state.refusal = "");
  state.wasRefused = saver.isRefused;
  const waiting = saver.queue.length;
  const strokes = waiting === 1 ? "1 stroke" : `${waiting} strokes`;
  let words = saver.savedAt ? `All strokes saved ${saver.savedAt}.` : "Nothing painted yet.";
  if (waiting && !saver.isKept) words = `${strokes} not saved, and this browser can't keep them: leave this page open.`;
  else if (waiting && saver.isShutOut) words = `${strokes} not saved, kept in this browser and sent once the run is seen again: ${HOW_SEEN_AGAIN}`;
  else if (waiting && saver.ofAnother) words = `${strokes} not saved, kept in this browser and sent once ${saver.owner} is logged in again.`;
  else if (waiting && saver.isRefused) words = `${strokes} not saved, kept in this browser and sent once you are logged in.`;
  else if (!saver.isRead && saver.isRefused) words = "Painting can't begin.";
  else if (!saver.isRead && saver.trouble) words = `Painting can't begin yet: ${saver.trouble}. It is asked for again until it comes.`;
  else if (waiting) words = saver.trouble ? `${strokes} not saved: ${saver.trouble.replace(/\.$/, "")}.` : `${strokes} not saved.`;
  else if (saver.isBusy) words = saver.trouble ? `Not done yet: ${saver.trouble}.` : "The server is at work.";
  else if (saver.trouble) words = `${sentence(saver.trouble)} ${words}`;
  if (state.isPenDown) words += " The brush is down.";
  if (state.isHidden) words += " The masks are hidden.";
  if (state.next && waiting) words += " The other mask opens when they are saved.";
  say(words);
  status.dataset.state = waiting || saver.isBusy || saver.isRefused ? "waiting" : "saved";
  const isIdle = !waiting && !saver.isBusy;
  grey("undo", !saver.canUndo || !isIdle);
  grey("redo", !saver.canRedo || !isIdle);
  document.getElementById("undo").textContent = turning("Undo", saver.undoes);
  document.getElementById("redo").textContent = turning("Redo", saver.redoes);
  sayWhose();
  if (isIdle) giveFocusBack();
  if (saver.isRead) document.getElementById("unfinished").hidden = !waiting && !saver.isUnfinished;
  sayUndecidable(waiting);
  const overtaken = document.getElementById("overtaken");
  overtaken.hidden = !saver.isOvertaken;
  overtaken.querySelector("p").textContent = `${sentence(saver.overtakenBy).split(". ")[0]}. ${strokes} of yours not saved. Painting waits for your choice:`;
  if (!stroke) planes.forEach(paint);
  if (state.next && !waiting && !stroke) leave();
}

/** Who paints here, empty as long as no name was given. */
function painterHere() {
  return reader.value.trim();
}

function isMine(painter) {
  return painter === painterHere();
}

/** A button names the painter whose stroke it takes back or brings back, where that is somebody else. */
function turning(word, painter) {
  return painter && !isMine(painter) ? `${word} stroke of ${painter}` : word;
}

/** The keys turn one's own strokes alone, whoever painted later; those of others only the button that names them does. */
function turnMine(tool, painters) {
  const word = tool === "undo" ? "Undo" : "Redo";
  const painter = tool === "undo" ? saver.undoes : saver.redoes;
  if (painters.some(isMine)) ask(tool, { is_own: true });
  else if (painter) sayOfDeed(`That stroke is one of ${painter}: press "${turning(word, painter)}".`);
  else if (saver.isRead) sayOfDeed(`There is no stroke to ${tool}.`);
}

/** Whose strokes wait to be finished, and whom the correction names besides who finishes it. */
function sayWhose() {
  const strokes = (count) => (count === 1 ? "1 stroke" : `${count} strokes`);
  const of = (painter) => (isMine(painter) ? "of yours" : `of ${painter}`);
  const painted = saver.open.filter((one) => one.painted).map((one) => `${strokes(one.painted)} ${of(one.painter)}`);
  const back = saver.open.filter((one) => one.taken_back).map((one) => `${strokes(one.taken_back)} ${of(one.painter)} taken back`);
  const all = [...painted, ...back].join(", ");
  const isOfOthers = saver.isUnfinished && saver.painters.some((one) => !isMine(one));
  const others = saver.painters.filter((one) => !isMine(one)).join(", ");
  const names = saver.painters.some(isMine) ? `${others} and of yours` : others;
  const finishing = isOfOthers ? ` In this mask are strokes of ${names}: Finish names each as painter, and you as who finished it.` : "";
  const words = `${all && `${all}.`}${finishing}`.trim();
  const line = document.getElementById("whose");
  if (line.textContent !== words) line.textContent = words;
}

/** A button with the focus that is greyed loses it: which one it was is kept. */
function grey(id, isGreyed) {
  const button = document.getElementById(id);
  if (isGreyed && document.activeElement === button) state.greyed = id;
  button.disabled = isGreyed;
}

/** The focus is again where it was before a stroke was undone; on the picture where there is no more to undo. */
function giveFocusBack() {
  if (!state.greyed) return;
  const button = document.getElementById(state.greyed);
  state.greyed = "";
  if (![document.body, button].includes(document.activeElement)) return; // it has gone on meanwhile
  if (button.disabled) choose(state.plane);
  else button.focus();
}

/**
 * Why nothing can be accepted, rejected or finished now, and the buttons greyed as long as that is so. Finish keeps the
 * focus and says why when it is pressed: it is greyed by its own deed.
 */
function sayUndecidable(waiting) {
  let why = "";
  if (!state.isAlone) why = "this mask is open in another window of this browser";
  else if (saver.ofAnother) why = "somebody else is logged in now";
  else if (saver.isOvertaken) why = "this mask was changed elsewhere. Choose first what becomes of your strokes";
  else if (waiting || stroke) why = "not all strokes are saved";
  else if (saver.isUnfinished && scene.gone) why = "what was painted can't be finished any more. Undo the strokes";
  else if (saver.isUnfinished) why = "what was painted is not finished. Finish the correction, or undo the strokes";
  const isNothingDecided = !state.isAlone || saver.isOvertaken || Boolean(saver.ofAnother);
  const what = isNothingDecided ? "Accept, Reject and Finish wait" : "Accept and Reject wait";
  const isChanged = saver.isRead ? saver.isUnfinished : !document.getElementById("unfinished").hidden;
  state.whyNotFinish = scene.gone ? SERIES_GONE : why || isChanged ? "" : NOTHING_TO_FINISH;
  document.getElementById("undecidable").textContent = why ? `${what}: ${why}.` : state.whyNotFinish;
  for (const name of ["accepted", "rejected"]) document.querySelector(`[data-decision=${name}]`).disabled = Boolean(why);
  const finishing = document.querySelector("[data-decision=corrected]");
  finishing.disabled = isNothingDecided;
  finishing.setAttribute("aria-disabled", Boolean(state.whyNotFinish));
  if (why) rejecting.hidden = true;
}

/** Goes to the other mask. The browser takes its time, in which nothing is painted that would be lost with the page. */
function leave() {
  state.isLeaving = true;
  location.assign(state.next);
}

/** Opens another mask at the same place, once what was painted of this one is saved; this one takes that back. */
function paintOther(name) {
  if (!labels.has(name)) return;
  if (state.isPenDown) pen();
  end();
  state.next = name === scene.layer ? "" : `${scene.base}/correct/${name}?at=${state.at.join(",")}`;
  told();
}

function hide() {
  state.isHidden = !state.isHidden;
  told();
}

// ---- strokes

/** Why no stroke is taken now, in a sentence; empty where one is: also while the server is asked something. */
function whyNotPainting({ isTurning = false } = {}) {
  if (!state.isAlone) return ELSEWHERE;
  if (saver.ofAnother) return saver.ofAnother;
  if (scene.gone && !isTurning) return sentence(scene.gone); // strokes from before are taken back
  if (!saver.isRead) return "Painting begins once the mask is read.";
  if (saver.isOvertaken) return "Painting waits: this mask was changed elsewhere. Choose first what becomes of your strokes.";
  if (state.isLeaving) return "The other mask is being opened.";
  return painterHere() ? "" : "Give your name first: it stands beside each stroke.";
}

/** Why a plane takes no stroke: nobody paints on what they can't see. */
function whyNotOn(plane) {
  const isAway = plane && panes.get(plane).dataset.shown === "";
  return isAway ? `The ${plane} slice is not shown, so nothing is painted on it.` : "";
}

/** Whether a stroke is taken now; where it isn't, that is said, and the name that is missing asked for. */
function mayPaint(plane = "", how = {}) {
  state.refusedOn = plane;
  state.refusal = whyNotPainting(how) || whyNotOn(plane);
  if (!state.refusal) return true;
  sayOfDeed(state.refusal);
  if (!painterHere() && saver.isRead) setTimeout(() => reader.focus()); // behind what a press does with the focus
  return false;
}

function begin(plane) {
  stroke = { plane, value: tool() === "eraser" ? 0 : 1, tool: tool(), places: new Set() };
}

/** A disc of the brush's radius around a voxel in the stroke's plane: voxels whose centre lies in it. */
function dab(at) {
  const { rows, columns } = scene.planes[stroke.plane];
  const radius = Math.max(Number(form.elements.radius.value) || 0, 0);
  const [high, wide] = [Math.floor(radius / spacing[rows]), Math.floor(radius / spacing[columns])];
  for (let row = -high; row <= high; row += 1) {
    for (let column = -wide; column <= wide; column += 1) {
      const inside = (row * spacing[rows]) ** 2 + (column * spacing[columns]) ** 2 <= radius ** 2 + 1e-9;
      const voxel = [...at];
      voxel[rows] += row;
      voxel[columns] += column;
      if (inside && voxel.every((index, axis) => index >= 0 && index < scene.shape[axis])) {
        stroke.places.add(flat(voxel));
        mask.put(flat(voxel), stroke.value);
      }
    }
  }
}

/** Paints from one voxel to another, so that a fast hand leaves no gaps. */
function line(from, to) {
  const count = Math.max(...to.map((value, axis) => Math.abs(value - from[axis])), 1);
  for (let step = 0; step <= count; step += 1) {
    dab(to.map((value, axis) => Math.round(from[axis] + ((value - from[axis]) * step) / count)));
  }
  paint(stroke.plane);
}

function end() {
  if (!stroke) return;
  const { places, tool: name } = stroke;
  stroke = null;
  if (places.size) {
    sayOfDeed(""); // what came of a deed before
    saver.add(name, runsOf([...places].sort((a, b) => a - b)));
  }
  told(); // another mask may wait for this
  settleSoon();
}

function use(plane) {
  if (stroke || !mayPaint(plane)) return;
  if (tool() === "brush" || tool() === "eraser") {
    begin(plane);
    dab(state.at);
    end();
    return;
  }
  const { tolerance, reach } = form.elements;
  const more = { at: state.at, plane, tolerance_hu: Number(tolerance.value), reach_mm: Number(reach.value) };
  ask(tool(), more);
}

/** Asks the server for a deed; what came of the one before holds no more. */
async function ask(what, more) {
  sayOfDeed("");
  const why = await saver.ask(what, more);
  if (why) sayOfDeed(why);
  settle();
}

function pen() {
  if (state.isPenDown) {
    state.isPenDown = false;
    end();
  } else if (!stroke && ["brush", "eraser"].includes(tool()) && mayPaint(state.plane)) {
    state.isPenDown = true;
    begin(state.plane);
    line(state.at, state.at);
  }
  told();
}

// ---- keys and pointer

function choose(plane, { focus = true } = {}) {
  if (state.isPenDown && plane !== state.plane) pen();
  state.plane = plane;
  panes.forEach((pane, name) => pane.classList.toggle("active", name === plane));
  if (focus) panes.get(plane).querySelector(".picture").focus({ preventScroll: true });
}

function step(count) {
  if (state.isPenDown) pen(); // a stroke lies in one slice
  const { normal, step: way } = scene.planes[state.plane];
  const at = [...state.at];
  at[normal] += way * count;
  moveTo(at);
}

/** Goes to a lesion that the network marked. */
function toLesion(wanted) {
  const count = scene.lesions.length;
  if (!count) {
    place.textContent = scene.unvisited;
    return;
  }
  if (state.isPenDown) pen();
  state.visited = lesionNumber(wanted, count);
  moveTo(scene.lesions[state.visited - 1]);
}

function nudge(across, down) {
  const { rows, columns, flipRows, flipColumns } = scene.planes[state.plane];
  const [from, at] = [state.at, [...state.at]];
  at[columns] += flipColumns ? -across : across;
  at[rows] += flipRows ? -down : down;
  moveTo(at);
  if (state.isPenDown) line(from, state.at);
}

function choice(name, value) {
  if (state.isPenDown) pen();
  form.elements[name].value = value;
}

function radius(change) {
  const field = form.elements.radius;
  field.value = Math.max(Number(field.value) + change, 0);
}

const KEYS = {
  ArrowLeft: (event) => nudge(event.shiftKey ? -10 : -1, 0),
  ArrowRight: (event) => nudge(event.shiftKey ? 10 : 1, 0),
  ArrowUp: (event) => nudge(0, event.shiftKey ? -10 : -1),
  ArrowDown: (event) => nudge(0, event.shiftKey ? 10 : 1),
  PageDown: (event) => step(event.shiftKey ? PAGE : 1),
  PageUp: (event) => step(event.shiftKey ? -PAGE : -1),
  " ": () => use(state.plane),
  x: pen,
  n: () => toLesion(state.visited + 1),
  p: () => toLesion((state.visited || 1) - 1),
  1: () => choose(planes[0]),
  2: () => choose(planes[1]),
  3: () => choose(planes[2]),
  b: () => choice("tool", "brush"),
  e: () => choice("tool", "eraser"),
  f: () => choice("tool", "fill"),
  g: () => choice("tool", "grow"),
  "[": () => radius(-1),
  "]": () => radius(1),
  h: hide,
  t: () => document.getElementById("following")?.click(),
  u: () => turnMine("undo", saver.undoable),
  r: () => turnMine("redo", saver.redoable),
  w: () => {
    const field = form.elements.window;
    field.selectedIndex = (field.selectedIndex + 1) % field.options.length;
    planes.forEach(draw);
  },
};
for (const [name, link] of labels) {
  KEYS[link.dataset.key] = () => paintOther(name);
  link.addEventListener("click", (event) => {
    if (event.button || event.ctrlKey || event.metaKey || event.shiftKey) return; // another window
    event.preventDefault();
    paintOther(name);
  });
}
const IN_PICTURE = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "PageDown", "PageUp", " "]);
const SHOWN = new Set([...IN_PICTURE, "x", "n", "p", "1", "2", "3"]); // whoever presses them looks at the picture

document.addEventListener("keydown", (event) => {
  const act = deedOf(KEYS, event);
  if (!act) return;
  if (IN_PICTURE.has(event.key) && !event.target.closest(".picture")) return; // elsewhere they scroll and press
  event.preventDefault();
  act(event);
  if (SHOWN.has(event.key)) bringIntoView(panes.get(state.plane).querySelector(".picture"));
});

for (const [plane, pane] of panes) {
  const area = pane.querySelector(".picture");
  const image = pane.querySelector("img");
  const { normal } = scene.planes[plane];
  const under = (event) => voxelUnder(event, image, scene.planes[plane], state.at, scene.shape);
  fitOver(pane);
  area.addEventListener("focus", () => choose(plane, { focus: false }));
  area.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    choose(plane);
    if (state.isPenDown) pen();
    if (!isShown(image)) mayPaint(plane); // says why not
    if (!isOnPicture(event, image)) return;
    moveTo(under(event));
    if (event.ctrlKey || event.metaKey || !mayPaint(plane)) return; // moves the crosshair alone
    if (tool() === "brush" || tool() === "eraser") {
      area.setPointerCapture(event.pointerId);
      begin(plane);
      line(state.at, state.at);
    } else use(plane);
  });
  area.addEventListener("pointermove", (event) => {
    if (!stroke || !area.hasPointerCapture(event.pointerId)) return;
    const from = state.at;
    moveTo(under(event));
    line(from, state.at);
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
    area.addEventListener(name, () => { if (!state.isPenDown) end(); });
  }
  onWheel(area, (count) => {
    if (stroke) return;
    choose(plane);
    step(count);
  });
  pane.querySelector("input").addEventListener("input", (event) => {
    choose(plane, { focus: false });
    const at = [...state.at];
    at[normal] = Number(event.target.value);
    moveTo(at);
  });
}

form.addEventListener("submit", (event) => event.preventDefault());
form.elements.window.addEventListener("input", () => planes.forEach(draw));
for (const name of ["undo", "redo"]) {
  const painter = () => (name === "undo" ? saver.undoes : saver.redoes);
  document.getElementById(name).addEventListener("click", () => { if (mayPaint("", { isTurning: true })) ask(name, { is_own: isMine(painter()) }); });
}
document.getElementById("keep").addEventListener("click", () => saver.takeOver({ isKeeping: true }));
document.getElementById("drop").addEventListener("click", () => saver.takeOver({ isKeeping: false }));

// ---- decisions

async function decide(decision, reason = "") {
  if (state.isPenDown) pen();
  if (decision === "corrected" && state.whyNotFinish) {
    sayOfDeed(state.whyNotFinish);
    return;
  }
  said.textContent = decision === "corrected" ? "The object is being made." : "";
  const answer = await saver.decide(decision, reason);
  sayOfDeed(answer.said);
  if (!answer.isDone) return;
  if (decision === "corrected") await saver.refresh().catch(() => {}); // what is finished is saved
  if (decision === "rejected") leaveRejecting();
  renew(await pageNow());
}

/** This page as it is now; null where it can't be had. */
async function pageNow() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  return answer?.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
}

/**
 * Shows what was decided, and by whom, as the page says it now. What has the focus stays for now, and is asked again:
 * gives whether it is shown.
 */
function renew(page) {
  const olds = [...document.querySelectorAll("[data-renewed]")];
  if (!page || olds.some((old) => old.contains(document.activeElement))) return false;
  for (const old of olds) {
    const made = page.getElementById(old.id);
    if (made && !old.isEqualNode(made)) old.replaceChildren(...made.childNodes);
  }
  const { stamp } = page.getElementById("decided")?.dataset ?? {};
  if (stamp) document.getElementById("decided").dataset.stamp = stamp;
  told();
  return true;
}

document.querySelectorAll("[data-decision]").forEach((button) => {
  button.addEventListener("click", () => {
    if (!reader.value.trim()) {
      said.textContent = "Give your name first: it stands beside the decision.";
      reader.focus();
      return;
    }
    rejecting.hidden = button.dataset.decision !== "rejected";
    if (rejecting.hidden) decide(button.dataset.decision);
    else rejecting.elements.reason.focus();
  });
});

function leaveRejecting() {
  rejecting.hidden = true;
  document.querySelector("[data-decision=rejected]").focus();
}

rejecting.addEventListener("submit", (event) => {
  event.preventDefault();
  decide("rejected", rejecting.elements.reason.value.trim());
});
rejecting.addEventListener("keydown", (event) => {
  if (event.key === "Escape") leaveRejecting();
});
document.getElementById("not-rejecting").addEventListener("click", leaveRejecting);

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-send]");
  if (!button) return;
  const answer = await saver.sendOut(Number(button.dataset.send));
  sayOfDeed(answer.said);
  if (answer.isDone) button.disabled = true; // the page says from now on what became of it
});

if (!reader.dataset.fixed) {
  // Of this tab alone: on a shared workstation the next reader is somebody else.
  reader.value = recall("sessionStorage", READER_KEY) || reader.value;
  reader.addEventListener("input", () => {
    keep("sessionStorage", READER_KEY, reader.value);
    said.textContent = ""; // the name was asked for
    if (saver.isRead) told();
  });
}

onReturn(() => {
  saver.hurry();
  planes.forEach(draw); // no work where the slice is shown
  settle();
});
setInterval(async () => {
  if (!state.isAlone || state.isLeaving || document.visibilityState !== "visible") return;
  const decided = await saver.watch();
  if (!decided || decided === document.getElementById("decided").dataset.stamp) return;
  if (renew(await pageNow())) said.textContent = ""; // what one did last holds no more: somebody else decided
}, WATCH_MS);
addEventListener("pageshow", (event) => {
  if (event.persisted) Object.assign(state, { next: "", isLeaving: false }); // somebody came back
});
addEventListener("beforeunload", (event) => {
  if (state.isPenDown) pen();
  end(); // a stroke of the pointer is kept as far as it got
  if (saver.queue.length && !(saver.isRefused && saver.isKept)) event.preventDefault(); // sent by who comes back
});

keepTools(form);
choose(planes[0]);
planes.forEach((plane) => {
  draw(plane);
  cross(plane);
});
readOthers(scene, (name, copy) => {
  const how = labels.get(name).querySelector(".how");
  if (!copy && how.textContent !== OTHER_UNREAD) {
    how.dataset.words = how.textContent;
    how.textContent = OTHER_UNREAD;
  } else if (copy && how.textContent === OTHER_UNREAD) how.textContent = how.dataset.words;
  if (copy) others.set(name, copy);
  if (!stroke) planes.forEach(paint);
  settleSoon();
});
function sayWaiting() {
  say(ELSEWHERE);
  sayUndecidable(0);
}

alone(saver.key, sayWaiting).then(async () => {
  state.isAlone = true;
  await saver.begin();
  settle();
});
