// Two scans side by side: the slider, the arrow keys on it and the wheel go through both at the same height of the
// lungs; where the earlier scan does not reach, words stand in place of its picture. Without this script the form does the same with a reload.

import { keepShowing, onWheel, showNothing, Troubles } from "./panes.js";

const form = document.getElementById("compared");
const panes = [...document.querySelectorAll(".beside figure")];
const own = panes[1]?.dataset;
const drawing = new URL(panes[1]?.querySelector("img").src ?? location.href).searchParams;
const troubles = new Troubles(document.getElementById("trouble"), { leadsToLogIn: true });

document.documentElement.classList.add("scripted");

/** The slice of a pane at the height of a slice of this scan, and how many mm beyond the pane's scan that is. */
function matched(index, pane) {
  const { foot, apex, count, mm } = pane.dataset;
  const share = own.apex === own.foot ? 0 : (index - own.foot) / (own.apex - own.foot);
  const place = pane === panes[1] ? index : Number(foot) + share * (apex - foot);
  const found = Math.round(place);
  const outermost = Math.min(Math.max(found, 0), count - 1);
  const beyond = found === outermost ? 0 : (place - outermost) * mm * (Number(apex) >= Number(foot) ? 1 : -1);
  return { found: outermost, beyond };
}

function sayBeyond(pane, beyond) {
  const words = pane.querySelector(".beyond");
  const mm = Math.max(Math.round(Math.abs(beyond)), 1);
  words.textContent = beyond ? `The earlier scan does not reach here: it ends ${mm} mm ${beyond > 0 ? "below" : "above"}.` : "";
  words.hidden = !beyond;
  pane.querySelector("img").hidden = Boolean(beyond);
}

function say(pane, words, error = null) {
  pane.querySelector("img").alt = words;
  troubles.tell(pane === panes[1] ? "later" : "earlier", error);
}

async function draw(pane) {
  const { found, beyond } = matched(Number(form.at.value), pane);
  pane.querySelector("output").value = beyond ? "\u2013" : found;
  drawing.set("window", form.window.value);
  keepAddress();
  sayBeyond(pane, beyond);
  if (beyond) {
    showNothing(pane);
    say(pane, "");
    return;
  }
  await keepShowing(pane, `${pane.dataset.base}/slice/axial/${found}.png?${drawing}`, {
    source: (wanted) => wanted,
    onTrouble: (error) => say(pane, "", error),
    onShown: () => pane.dataset.wanted && say(pane, `${pane.querySelector(".name").textContent}: axial slice ${pane.querySelector("output").value}.`),
  });
}

function keepAddress() {
  const place = new URL(location.href);
  for (const name of ["at", "window", "earlier"]) place.searchParams.set(name, form[name].value);
  history.replaceState(null, "", place);
}

if (form) {
  form.addEventListener("input", () => panes.forEach(draw));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const pane of panes) {
    onWheel(pane, (count) => {
      form.at.value = Number(form.at.value) + count;
      panes.forEach(draw);
    });
  }
}
