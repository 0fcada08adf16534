// The images page: slices that the server draws, moved by keys, wheel and pointer. Without this script the page works
// by its links and its form; with it the same pictures come without a reload.

import { prepare, showVolume, wire } from "./modes.js";
import { bringIntoView, clipped, deedOf, drawCross, fitOver, keepPlace, keepShowing, lesionNumber, notShown, onReturn, onWheel, pointUnder, Troubles, voxelUnder } from "./panes.js";
import { Ruler } from "./ruler.js";
import { LOGGED_OUT, SHUT_OUT, isShutOut, sayLoggedOut } from "./words.js";

const scene = JSON.parse(document.getElementById("scene").textContent);
const form = document.getElementById("tools");
const place = document.getElementById("place");
const panes = new Map([...document.querySelectorAll("[data-plane]")].map((pane) => [pane.dataset.plane, pane]));
const planes = [...panes.keys()];
const LAYERS = ["lung", "lesion"];
const KEPT = 160; // pictures of some 100 KB
const SETTLED_MS = 180;
const RETRY_MS = 1500;
const IS_NARROW = matchMedia("(max-width: 900px)"); // as in viewer.css: the findings are below the pictures
const ONLY_IN_SLICES = "Distances are measured in slices.";

const state = { at: [...scene.at], plane: planes[0], lesion: 0, visited: 0 }; // `visited`: the lesion one was at last
const pictures = new Map();
const ruler = new Ruler(scene, panes, document.getElementById("measured"));
const measure = document.getElementById("measure");
const troubles = new Troubles(document.getElementById("trouble"));
let settling = 0;
let isKnown = true; // what is said of the place is of where one is

document.documentElement.classList.add("scripted");

function query() {
  const values = new FormData(form);
  const overlay = LAYERS.filter((layer) => values.get(layer) !== "off")
    .map((layer) => (values.get(layer) === "fill" ? `${layer}-fill` : layer));
  if (values.has("saliency")) overlay.push("saliency");
  const opacity = values.get("opacity");
  return `window=${values.get("window")}&overlay=${overlay.join(",") || "none"}&opacity=${opacity}`;
}

async function picture(plane, index) {
  const url = `${scene.base}/slice/${plane}/${index}.png?${query()}`;
  if (!pictures.has(url)) {
    const coming = fetch(url).catch(() => null).then(async (answer) => {
      if (!answer?.ok) throw notShown(answer);
      return URL.createObjectURL(await answer.blob());
    });
    pictures.set(url, coming);
    coming.catch(() => pictures.delete(url));
    if (pictures.size > KEPT) {
      const [oldest, old] = pictures.entries().next().value;
      pictures.delete(oldest);
      old.then(URL.revokeObjectURL, () => {});
    }
  }
  return pictures.get(url);
}

function draw(plane) {
  const pane = panes.get(plane);
  const index = state.at[scene.planes[plane].normal];
  pane.querySelector("input").value = index;
  pane.querySelector("output").value = index;
  return keepShowing(pane, `${index}?${query()}`, {
    source: (wanted) => picture(plane, parseInt(wanted, 10)),
    onTrouble: (error) => troubles.tell(plane, error),
    onShown: () => {
      troubles.tell(plane);
      if (!isKnown) settleSoon(); // the server is back
    },
  });
}

function moveTo(at) {
  document.getElementById("outside")?.remove();
  const before = state.at;
  state.at = clipped(at, scene.shape);
  for (const plane of planes) {
    const { normal } = scene.planes[plane];
    if (state.at[normal] !== before[normal]) draw(plane);
    drawCross(panes.get(plane), scene.planes[plane], state.at, scene.shape);
  }
  if (ruler.isFollowing) ruler.stretch(state.at);
  ruler.draw(state.at);
  form.elements.at.value = state.at.join(",");
  mark();
  settleSoon();
  document.dispatchEvent(new CustomEvent("carina-moved", { detail: state.at }));
}

function settleSoon() {
  clearTimeout(settling);
  settling = setTimeout(settle, SETTLED_MS);
}

// What is shown, in words, once the user has come to rest: for the status line and as text of each picture.
async function settle() {
  const at = state.at.join("/");
  keepPlace(state.at);
  const answer = await fetch(`${scene.base}/at/${at}.json`).catch(() => null);
  if (at !== state.at.join("/")) return;
  if (!answer?.ok) {
    sayUnknown(answer);
    if (!answer || answer.status >= 500) settling = setTimeout(settle, RETRY_MS); // until the server is back
    return;
  }
  const said = await answer.json();
  isKnown = true;
  place.textContent = said.place;
  for (const plane of planes) panes.get(plane).querySelector("img").alt = said.slices[plane];
  const where = state.lesion ? `lesion-${state.lesion}` : state.at.join(",");
  history.replaceState(null, "", `?at=${where}&${query()}`);
  for (const plane of planes) fetchAhead(plane);
}

/** Everything that is missing is asked for again. */
function comeBack() {
  planes.forEach(draw); // no work where the slice is shown
  if (!isKnown) settle();
}

/** Nothing is known of where the crosshair is: what was said of another place must not stand there. */
function sayUnknown(answer) {
  isKnown = false;
  for (const plane of planes) panes.get(plane).querySelector("img").alt = "";
  if (answer?.status === LOGGED_OUT) sayLoggedOut(place, "You are no longer logged in.");
  else if (isShutOut(answer?.status)) sayLoggedOut(place, SHUT_OUT);
  else place.textContent = answer ? `What is here could not be read (${answer.status}).` : "The server does not answer: what is here is not known.";
}

function fetchAhead(plane) {
  if (plane !== state.plane) return;
  const { normal } = scene.planes[plane];
  for (const index of [state.at[normal] + 1, state.at[normal] - 1]) {
    if (index >= 0 && index < scene.shape[normal]) picture(plane, index).catch(() => {});
  }
}

function mark() {
  const found = scene.lesions.findIndex((at) => at.every((value, axis) => value === state.at[axis]));
  state.lesion = found + 1;
  if (state.lesion) state.visited = state.lesion;
  document.querySelectorAll("#lesions a").forEach((link, number) => {
    if (number === found) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  });
}

function step(count) {
  const { normal, step: way } = scene.planes[state.plane];
  const at = [...state.at];
  at[normal] += way * count;
  moveTo(at);
}

function toEnd(isLast) {
  const { normal, step: way } = scene.planes[state.plane];
  const at = [...state.at];
  at[normal] = isLast === way > 0 ? scene.shape[normal] - 1 : 0;
  moveTo(at);
}

function toLesion(number) {
  const count = scene.lesions.length;
  if (!count) {
    place.textContent = scene.unvisited;
    return;
  }
  const wanted = lesionNumber(number, count);
  moveTo(scene.lesions[wanted - 1]);
  showRow(document.getElementById("lesions"), document.querySelectorAll("#lesions a")[wanted - 1]);
  if (IS_NARROW.matches) showPicture();
}

/** Scrolls a list to one of its rows, and nothing but the list. */
function showRow(list, row) {
  const [box, shown] = [row.getBoundingClientRect(), list.getBoundingClientRect()];
  list.scrollTop += Math.min(box.top - shown.top, 0) + Math.max(box.bottom - shown.bottom, 0);
}

/** Brings the picture that is worked with into view. */
function showPicture() {
  const isOther = document.getElementById("panes").classList.contains("other");
  const shown = isOther ? document.getElementById("volume") : panes.get(state.plane).querySelector(".picture");
  bringIntoView(shown);
}

function choose(plane, { focus = true } = {}) {
  state.plane = plane;
  panes.forEach((pane, name) => pane.classList.toggle("active", name === plane));
  if (focus) panes.get(plane).querySelector(".picture").focus({ preventScroll: true });
}

function changed() {
  const legend = document.getElementById("saliency");
  if (legend) legend.hidden = !form.elements.saliency.checked;
  planes.forEach(draw);
  settleSoon();
  const { window, lung, lesion, opacity } = Object.fromEntries(new FormData(form));
  document.dispatchEvent(new CustomEvent("carina-drawing", { detail: { window, lung, lesion, opacity } }));
}

function cycle(name) {
  const field = form.elements[name];
  field.selectedIndex = (field.selectedIndex + 1) % field.options.length;
  changed();
}

function opacity(change) {
  form.elements.opacity.value = Number(form.elements.opacity.value) + change;
  changed();
}

function measureHere() {
  if (measure.disabled) return;
  ruler.press(state.at);
  ruler.draw(state.at);
}

function press({ isOn }) {
  measure.setAttribute("aria-pressed", String(isOn));
  document.getElementById("panes").classList.toggle("measuring", isOn);
}

function clearRuler() {
  ruler.clear();
  ruler.draw(state.at);
}

const KEYS = {
  ArrowDown: (event) => step(event.shiftKey ? 10 : 1),
  ArrowUp: (event) => step(event.shiftKey ? -10 : -1),
  PageDown: () => step(10),
  PageUp: () => step(-10),
  Home: () => toEnd(false),
  End: () => toEnd(true),
  1: () => choose(planes[0]),
  2: () => choose(planes[1]),
  3: () => choose(planes[2]),
  n: () => toLesion(state.visited + 1),
  p: () => toLesion((state.visited || 1) - 1),
  w: () => cycle("window"),
  l: () => cycle("lung"),
  o: () => cycle("lesion"),
  a: () => {
    const field = form.elements.saliency;
    if (!field) return;
    field.checked = !field.checked;
    changed();
  },
  "+": () => opacity(10),
  "-": () => opacity(-10),
  m: measureHere,
  Escape: clearRuler,
  s: () => mode("slices"),
  v: () => mode("volume"),
  d: () => mode("solid"),
  t: () => document.getElementById("following")?.click(),
};
const MOVES = new Set(["ArrowDown", "ArrowUp", "PageDown", "PageUp", "Home", "End"]);
const SHOWN = new Set([...MOVES, "n", "p", "1", "2", "3", "m", "s", "v", "d"]); // whoever presses them looks at the picture

document.addEventListener("keydown", (event) => {
  const act = deedOf(KEYS, event);
  if (!act) return;
  if (event.target.closest("canvas") && document.getElementById("volume").dataset.mode === "solid" && event.key.startsWith("Arrow")) return;
  const isInPicture = event.target.closest(".picture, canvas");
  if (MOVES.has(event.key) && !isInPicture) return; // elsewhere these keys scroll the page
  event.preventDefault();
  event.stopPropagation();
  act(event);
  if (SHOWN.has(event.key)) showPicture();
}, true); // before NiiVue, which has keys of its own

for (const [plane, pane] of panes) {
  const area = pane.querySelector(".picture");
  const image = pane.querySelector("img");
  const { normal } = scene.planes[plane];
  const isMeasuring = () => measure.getAttribute("aria-pressed") === "true";
  const pointed = (event) => pointUnder(event, image, scene.planes[plane], state.at, scene.shape);
  const follow = (event) => {
    if (!isMeasuring()) return moveTo(voxelUnder(event, image, scene.planes[plane], state.at, scene.shape));
    ruler.stretch(pointed(event));
    return ruler.draw(state.at);
  };
  fitOver(pane);
  area.addEventListener("focus", () => choose(plane, { focus: false }));
  area.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    choose(plane);
    area.setPointerCapture(event.pointerId);
    if (isMeasuring()) ruler.begin(pointed(event));
    follow(event);
  });
  area.addEventListener("pointermove", (event) => {
    if (area.hasPointerCapture(event.pointerId)) follow(event);
  });
  onWheel(area, (count) => {
    choose(plane);
    step(count);
  });
  pane.querySelector("input").addEventListener("input", (event) => {
    choose(plane, { focus: false });
    const at = [...state.at];
    at[normal] = Number(event.target.value);
    moveTo(at);
  });
  pane.querySelectorAll(".step").forEach((link) => {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      choose(plane, { focus: false });
      step(link.rel === "next" ? 1 : -1);
    });
  });
}

measure.hidden = false;
measure.addEventListener("click", () => {
  const isOn = measure.getAttribute("aria-pressed") !== "true";
  press({ isOn });
  if (!isOn) clearRuler();
});
document.addEventListener("carina-mode", ({ detail }) => { // distances are those of slices
  measure.disabled = detail !== "slices";
  measure.title = measure.disabled ? ONLY_IN_SLICES : "";
  if (measure.disabled) press({ isOn: false });
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", (event) => {
  if (!planes.includes(event.target.name)) changed();
});
document.querySelectorAll("#lesions a").forEach((link, number) => {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    toLesion(number + 1);
  });
});

const context = { scene, state, form, moveTo };

function mode(wanted) {
  showVolume(wanted, context);
  if (wanted === "slices") choose(state.plane);
}

for (const plane of planes) panes.get(plane).dataset.shown = `${state.at[scene.planes[plane].normal]}?${query()}`;
mark();
keepPlace(state.at);
choose(planes[0]);
onReturn(comeBack);
wire(context);
addEventListener("load", () => requestAnimationFrame(() => setTimeout(() => prepare(context)))); // the slices first
