// Two scans side by side: the slider, the arrow keys on it and the wheel go through both at the same height of the
// lungs. Without this script the form does the same with a reload.

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

// One picture at a time for each pane, and then the one that is wanted by now.
async function draw(pane) {
  const index = matched(Number(form.at.value), pane);
  pane.querySelector("output").value = index;
  const kept = new URL(pane.querySelector("img").src).searchParams;
  kept.set("window", form.window.value);
  pane.dataset.wanted = `${pane.dataset.base}/slice/axial/${index}.png?${kept}`;
  if (pane.dataset.drawing) return;
  pane.dataset.drawing = "yes";
  while (pane.dataset.shown !== pane.dataset.wanted) {
    const wanted = pane.dataset.wanted;
    const image = pane.querySelector("img");
    image.src = wanted;
    await image.decode().catch(() => { image.alt = "This slice could not be shown."; });
    pane.dataset.shown = wanted;
  }
  delete pane.dataset.drawing;
  const place = new URL(location.href);
  for (const name of ["at", "window", "earlier"]) place.searchParams.set(name, form[name].value);
  history.replaceState(null, "", place);
}

if (form) {
  form.addEventListener("input", () => panes.forEach(draw));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const pane of panes) {
    pane.addEventListener("wheel", (event) => {
      event.preventDefault();
      form.at.value = Number(form.at.value) + Math.sign(event.deltaY);
      panes.forEach(draw);
    }, { passive: false });
  }
}
