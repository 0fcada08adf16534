// What every page of slices does with its panes, whatever it draws on them: pictures, crosshair, pointer, wheel, keys.

const WHEEL_STEP = 40;
const PARTS_OF_FORMS = "input, select, textarea, summary";

/** An index that lies in the volume. */
export function clipped(at, shape) {
  return at.map((value, axis) => Math.min(Math.max(Math.round(value), 0), shape[axis] - 1));
}

/** Shows what is wanted in a pane: one picture at a time, then the one that is wanted by now. Who scrolls fast skips. */
export async function keepShowing(pane, wanted, { source, onTrouble }) {
  pane.dataset.wanted = wanted;
  if (pane.dataset.drawing) return;
  pane.dataset.drawing = "yes";
  while (pane.dataset.shown !== pane.dataset.wanted) {
    const next = pane.dataset.wanted;
    const image = pane.querySelector("img");
    try {
      image.src = await source(next);
      await image.decode();
      pane.dataset.shown = next;
    } catch (error) {
      image.removeAttribute("src"); // another slice must not stand under this one's number
      pane.dataset.shown = "";
      onTrouble(error);
      if (pane.dataset.wanted === next) break; // asked for again with the next move
    }
  }
  delete pane.dataset.drawing;
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

/** The point under the pointer as an index, whole at the middle of a voxel, in the slice that is shown. */
export function pointUnder(event, image, { rows, columns, flipRows, flipColumns }, at, shape) {
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
