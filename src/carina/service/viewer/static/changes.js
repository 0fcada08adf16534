// Two scans side by side: the slider, the arrow keys on it and the wheel go through both at the same height of the
// lungs. Without this script the form does the same with a reload.

import { keepShowing, onWheel, Troubles } from "./panes.js";

const form = document.getElementById("compared");
const panes = [...document.querySelectorAll(".beside figure")];
const own = panes[1]?.dataset;
const drawing = new URL(panes[0]?.querySelector("img").src ?? location.href).searchParams;
const troubles = new Troubles(document.getElementById("trouble"), { leadsToLogIn: true });

document.documentElement.classList.add("scripted");

function matched(index, pane) {
  const { foot, apex, count } = pane.dataset;
  const share = own.apex === own.foot ? 0 : (index - own.foot) / (own.apex - own.foot);
  const found = pane === panes[1] ? index : Math.round(Number(foot) + share * (apex - foot));
  return Math.min(Math.max(found, 0), count - 1);
}

function say(pane, words, error = null) {
  pane.querySelector("img").alt = words;
  troubles.tell(pane === panes[1] ? "later" : "earlier", error);
}

async function draw(pane) {
  const index = matched(Number(form.at.value), pane);
  pane.querySelector("output").value = index;
  drawing.set("window", form.window.value);
  await keepShowing(pane, `${pane.dataset.base}/slice/axial/${index}.png?${drawing}`, {
    source: (wanted) => wanted,
    onTrouble: (error) => say(pane, "", error),
    onShown: () => say(pane, `${pane.querySelector(".name").textContent}: axial slice ${pane.querySelector("output").value}.`),
  });
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
