// Two scans side by side: the slider, the arrow keys on it and the wheel go through both at the same height of the
// lungs. Without this script the form does the same with a reload.

import { keepShowing, onWheel } from "./panes.js";
import { LOGGED_OUT, sayLoggedOut } from "./words.js";

const form = document.getElementById("compared");
const panes = [...document.querySelectorAll(".beside figure")];
const own = panes[1]?.dataset;

document.documentElement.classList.add("scripted");

function matched(index, pane) {
  const { foot, apex, count } = pane.dataset;
  const share = own.apex === own.foot ? 0 : (index - own.foot) / (own.apex - own.foot);
  const found = pane === panes[1] ? index : Math.round(Number(foot) + share * (apex - foot));
  return Math.min(Math.max(found, 0), count - 1);
}

async function trouble(pane, url) {
  pane.querySelector("img").alt = "This slice could not be shown.";
  const answer = await fetch(url).catch(() => null);
  if (answer?.status === LOGGED_OUT) sayLoggedOut(document.getElementById("trouble"), "You are no longer logged in, so slices can't be shown.");
}

async function draw(pane) {
  const index = matched(Number(form.at.value), pane);
  pane.querySelector("output").value = index;
  const kept = new URL(pane.querySelector("img").src).searchParams;
  kept.set("window", form.window.value);
  await keepShowing(pane, `${pane.dataset.base}/slice/axial/${index}.png?${kept}`, {
    source: (wanted) => wanted,
    onTrouble: () => trouble(pane, pane.dataset.wanted),
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
