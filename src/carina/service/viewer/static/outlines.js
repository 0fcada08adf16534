// The outline of a mask in a slice, as the server draws it into the pictures of the images page (carina.report.paint):
// a line in the picture's own pixels just inside where the mask, resized with smooth borders, covers half of them. Of
// voxels that are thin or thick, all of an edge is a line.

export const LONGEST = 720; // the longer side of a picture in pixels
const LINE = LONGEST / 480; // how wide a line is
const REACH = Math.ceil(LINE + 1);

// By how far outside what is outside lies, how strongly a pixel belongs to the line: the nearest first.
const AROUND = [];
for (let down = -REACH; down <= REACH; down += 1) {
  for (let right = -REACH; right <= REACH; right += 1) {
    const strength = Math.min(LINE + 1 - Math.hypot(down, right), 1);
    if ((down || right) && strength > 0) AROUND.push({ down, right, strength });
  }
}
AROUND.sort((one, other) => other.strength - one.strength);

/** Height and width of a picture with square millimetres, of a slice of voxels of that many mm. */
export function sizeOf({ height, width }, [down_mm, across_mm]) {
  const mm = [height * down_mm, width * across_mm];
  return mm.map((side) => Math.max(1, Math.round((side * LONGEST) / Math.max(...mm))));
}

function cubic(away) {
  const x = Math.abs(away);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/** For each of `to` pixels the first of `from` that it is made of, and their parts: bicubic, smaller pictures averaged. */
function partsOf(from, to) {
  const step = from / to;
  const scale = Math.max(step, 1);
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * step;
    const first = Math.max(Math.trunc(centre - 2 * scale + 0.5), 0);
    const last = Math.min(Math.trunc(centre + 2 * scale + 0.5), from);
    const weights = Float32Array.from({ length: last - first }, (__, one) => cubic((first + one - centre + 0.5) / scale));
    const sum = weights.reduce((total, one) => total + one, 0);
    return { first, weights: weights.map((one) => one / sum) };
  });
}

/** Whether a mask, flat and 0 or 1, covers half of each pixel of a picture. */
function insideOf(marks, { height, width }, [tall, wide]) {
  const across = partsOf(width, wide);
  const rows = new Float32Array(height * wide);
  for (let row = 0; row < height; row += 1) {
    if (!marks.subarray(row * width, (row + 1) * width).includes(1)) continue;
    across.forEach(({ first, weights }, column) => {
      let sum = 0;
      for (let one = 0; one < weights.length; one += 1) sum += weights[one] * marks[row * width + first + one];
      rows[row * wide + column] = sum;
    });
  }
  const inside = new Uint8Array(tall * wide);
  partsOf(height, tall).forEach(({ first, weights }, row) => {
    for (let column = 0; column < wide; column += 1) {
      let sum = 0;
      for (let one = 0, from = first * wide + column; one < weights.length; one += 1, from += wide) sum += weights[one] * rows[from];
      inside[row * wide + column] = Number(sum >= 0.5);
    }
  });
  return inside;
}

/** How strongly the nearest that is outside makes a pixel one of the line; 0 where none is near. A picture's edge is no border. */
function strengthAt(inside, row, column, [tall, wide]) {
  for (const { down, right, strength } of AROUND) {
    const y = row + down;
    const x = column + right;
    if (y >= 0 && y < tall && x >= 0 && x < wide && !inside[y * wide + x]) return strength;
  }
  return 0;
}

/** Draws the outline of a mask, flat and 0 or 1, into the pixels of a picture. */
export function drawOutline({ data, height, width }, marks, size, colour) {
  const inside = insideOf(marks, size, [height, width]);
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const place = row * width + column;
      const strength = inside[place] ? strengthAt(inside, row, column, [height, width]) : 0;
      if (strength) data.set([...colour, Math.round(255 * strength)], 4 * place);
    }
  }
}
