// The one module that knows NiiVue. Places are mm in DICOM's LPS, as everywhere in Carina; NiiVue's are RAS.

import { Niivue, SHOW_RENDER, SLICE_TYPE } from "@niivue/niivue";

const COLOURS = { lung: [86, 180, 233], lesion: [230, 159, 0] };
const MARKS = { lung: [1, 3], lesion: [2, 3] }; // 3 is lesion in the lung, 0 is nothing
const MOST_MARKS = 3;
const SOLID_COVER = { lung: 0.05, lesion: 1 };
const PLANES = [
  { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, 0.6, 1] },
  { sliceType: SLICE_TYPE.CORONAL, position: [0.6, 0, 0.4, 0.5] },
  { sliceType: SLICE_TYPE.SAGITTAL, position: [0.6, 0.5, 0.4, 0.5] },
];
const SOFTWARE = /swiftshader|llvmpipe|softpipe|software/i;
// Bones are drawn of the CT itself; the others of images of their own, where the server made one.
const SOLIDS = {
  bone: { colormap: "ct_bones" },
  airways: { colormap: "carina-airways", range: [0, 200] },
  lungs: { colormap: "carina-lungs", range: [-1000, 200] },
};
const INSIDE_LUNGS = new Set(["airways", "lungs"]); // what the lungs' own surface would hide
const NOTHING = [30000, 31000]; // a range that no HU lies in
const SHADED = 0.7;

// I is a share of the range above, of 255.
const TRANSFER = {
  "carina-airways": { R: [70, 70, 160, 205], G: [120, 120, 205, 235], B: [140, 140, 215, 240], A: [0, 0, 170, 255], I: [0, 70, 115, 255] },
  // -700 HU: nothing; -550: ground glass, a haze; -300: vessels; 0: vessels and consolidation, opaque
  "carina-lungs": {
    R: [0, 110, 150, 215, 250, 255], G: [0, 60, 70, 110, 185, 235], B: [0, 70, 70, 80, 140, 215],
    A: [0, 0, 6, 60, 150, 200], I: [0, 64, 96, 149, 213, 255],
  },
};

const OPTIONS = {
  isRadiologicalConvention: true,
  sagittalNoseLeft: true,
  isSliceMM: true,
  isNearestInterpolation: false,
  multiplanarShowRender: SHOW_RENDER.NEVER,
  crosshairColor: [0.62, 0.85, 0.64, 0.8],
  crosshairWidth: 0.5,
  backColor: [0, 0, 0, 1],
  fontColor: [1, 0.84, 0.4, 1],
  textHeight: 0.06,
  show3Dcrosshair: true,
  isOrientCube: true,
  dragAndDropEnabled: false,
  viewModeHotKey: "",
  clipPlaneHotKey: "",
  cycleClipPlaneHotKey: "",
  loadingText: "",
  logLevel: "error",
};

const LETTERS_INSET = 4; // pixels
const EDGE = 1.5; // pixels: how wide the dark edge of letters is, for bone is as pale as they are
const EDGE_COLOUR = [0, 0, 0, 1];
const AROUND = [-1, 0, 1].flatMap((down) => [-1, 0, 1].map((right) => [right, down])).filter(([right, down]) => right || down);

// The shader of slices: red of the overlay is lung, green is lesion. A mask ends where half of what is around a place is
// marked, and its outline is drawn inside that edge, in the plane that is shown: the surface of a mask, cut by a plane
// that it lies level with, is an area. `lung` and `lesion` are a colour, and how strongly it covers the CT.
const SLICES = `#version 300 es
precision highp int;
precision highp float;
uniform highp sampler3D volume;
uniform highp sampler3D overlay;
uniform float opacity;
uniform vec4 lung;
uniform vec4 lesion;
uniform bool lungOutlined;
uniform bool lesionOutlined;
in vec3 texPos;
out vec4 color;
bvec2 marked(vec3 place) {
  bool isInside = all(lessThanEqual(abs(place - 0.5), vec3(0.5)));
  return bvec2(step(0.5, texture(overlay, place).rg) * float(isInside));
}
void draw(vec4 mask, bool isIn, bool isInner, bool isOutlined) {
  if (isIn && !(isOutlined && isInner)) color.rgb = mix(color.rgb, mask.rgb, mask.a);
}
void main() {
  color = vec4(texture(volume, texPos).rgb, opacity);
  vec3 across = 2.0 * dFdx(texPos);
  vec3 down = 2.0 * dFdy(texPos);
  bvec2 here = marked(texPos);
  bvec2 right = marked(texPos + across);
  bvec2 left = marked(texPos - across);
  bvec2 below = marked(texPos + down);
  bvec2 above = marked(texPos - down);
  draw(lung, here.x, right.x && left.x && below.x && above.x, lungOutlined);
  draw(lesion, here.y, right.y && left.y && below.y && above.y, lesionOutlined);
}`;

/**
 * NiiVue draws everything again for each image that is loaded and each colour that is set: here once for all. Its
 * letters are at the very edge of a picture, and the canvas takes a part of some: here they stand inside it.
 */
class CalmNiivue extends Niivue {
  isHeld = false;

  updateGLVolume() {
    if (!this.isHeld) super.updateGLVolume();
  }

  drawSliceOrientationText([left, top, width, height], ...more) {
    const [inset, edge, colour] = [LETTERS_INSET * devicePixelRatio, EDGE * devicePixelRatio, this.opts.fontColor];
    const draw = (right, down) =>
      super.drawSliceOrientationText([left + inset + right, top + inset + down, width - 2 * inset, height - 2 * inset], ...more);
    this.opts.fontColor = EDGE_COLOUR;
    for (const [right, down] of AROUND) draw(edge * right, edge * down);
    this.opts.fontColor = colour;
    draw(0, 0);
  }
}

/** Whether this browser draws by software: a full volume then takes half a minute, a turned one ten seconds. */
export function drawsBySoftware() {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) throw new Error("this browser has no WebGL 2");
  const told = gl.getExtension("WEBGL_debug_renderer_info");
  const name = told ? gl.getParameter(told.UNMASKED_RENDERER_WEBGL) : gl.getParameter(gl.RENDERER);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return SOFTWARE.test(name);
}

/** A CT with its masks in a canvas: three planes, or a solid to be turned. */
export class VolumeView {
  /** `onMove` is called with the place (mm, LPS) that the user went to. */
  constructor(canvas, onMove) {
    this.canvas = canvas;
    this.window = [-1350, 150];
    this.covers = { lung: 1, lesion: 1 };
    this.outlined = { lung: false, lesion: false };
    this.isSolid = false;
    this.solid = "bone";
    this.turned = [160, 12];
    this.place = null;
    this.isMoving = false;
    this.images = {}; // the loaded images by what they show: `ct`, and solids that have their own
    this.drawn = null;
    this.shading = 0;
    this.nv = new CalmNiivue(OPTIONS);
    for (const [name, colours] of Object.entries(TRANSFER)) this.nv.addColormap(name, colours);
    this.nv.onLocationChange = ({ mm }) => {
      if (this.isMoving || !this.nv.volumes.length) return;
      this.place = [-mm[0], -mm[1], mm[2]];
      onMove(this.place);
    };
  }

  /**
   * Shows a CT and, where there are masks, what is marked: each a `{ url, bytes }`, fetched where it has no bytes.
   * `of` is the solid whose own image stands in the place of the CT.
   */
  async load({ ct, marks }, of = "ct") {
    if (!this.nv.canvas) await this.nv.attachToCanvas(this.canvas);
    const named = ({ url, bytes }, more) => ({ url: bytes ?? url, name: url.split("/").pop(), ...more });
    const images = [named(ct, { colormap: "gray", cal_min: this.window[0], cal_max: this.window[1] })];
    for (const name of marks ? Object.keys(MARKS) : []) { // the last lies on top
      this.nv.addColormap(name, this.#palette(name));
      images.push(named(marks, { colormap: name, cal_min: 0, cal_max: MOST_MARKS, opacity: this.#strength(name) }));
    }
    this.isMoving = this.nv.isHeld = true;
    try {
      if (!this.nv.customSliceShader) this.nv.setCustomSliceShader(SLICES);
      await this.nv.loadVolumes(images);
      this.images[of] = this.nv.volumes;
    } finally {
      this.isMoving = this.nv.isHeld = false;
    }
    this.#shade();
    if (this.place) this.moveTo(this.place);
  }

  /** Whether a solid's own image is loaded. */
  has(solid) {
    return solid in this.images;
  }

  /** The grey window in HU. */
  setWindow(window) {
    this.window = window;
    this.#shade();
  }

  /** How strongly a mask, or its surface alone, covers the CT: 0 to 1. */
  setCover(name, cover, { isOutlined }) {
    this.covers[name] = cover;
    this.outlined[name] = isOutlined;
    this.#shade();
  }

  /** Puts the crosshair at a place (mm, LPS). */
  moveTo([x, y, z]) {
    this.place = [x, y, z];
    if (!this.nv.volumes.length) return;
    this.isMoving = true;
    this.nv.scene.crosshairPos = this.nv.mm2frac([-x, -y, z]);
    this.nv.drawScene();
    this.isMoving = false;
  }

  /** Three planes, or the solid. */
  show(isSolid) {
    if (isSolid !== this.isSolid) {
      this.isSolid = isSolid;
      this.#shade();
    }
    if (isSolid) this.nv.clearCustomLayout();
    else this.nv.setCustomLayout(PLANES);
    this.nv.setSliceType(isSolid ? SLICE_TYPE.RENDER : SLICE_TYPE.MULTIPLANAR);
    if (isSolid) this.nv.setRenderAzimuthElevation(...this.turned);
  }

  /** The transfer function of the solid: bone, airways or lungs. */
  setSolid(name) {
    this.solid = name;
    this.#shade();
  }

  /** Turns the solid by degrees. */
  turn(azimuth, elevation) {
    const [before, height] = this.turned;
    this.turned = [(before + azimuth + 360) % 360, Math.min(Math.max(height + elevation, -90), 90)];
    this.nv.setRenderAzimuthElevation(...this.turned);
  }

  #shade() {
    if (!this.images.ct || this.nv.isHeld) return;
    const own = this.isSolid && this.images[this.solid];
    const isOther = this.#use(own || this.images.ct);
    const [ct, ...masks] = this.nv.volumes;
    this.nv.isHeld = true;
    for (const mask of masks) {
      this.nv.addColormap(mask.colormap, this.#palette(mask.colormap));
      mask.opacity = this.#strength(mask.colormap);
    }
    if (!this.isSolid) this.#colourSlices();
    const { colormap, range } = this.isSolid ? SOLIDS[this.solid] : { colormap: "gray", range: this.window };
    const { min, max } = this.nv.colormapFromKey(colormap);
    ct.colormap = colormap;
    [ct.cal_min, ct.cal_max] = range ?? (max > min ? [min, max] : this.window);
    if (this.isSolid && range && !own) [ct.cal_min, ct.cal_max] = NOTHING;
    this.nv.isHeld = false;
    this.nv.updateGLVolume();
    this.#light(own ? SHADED : 0);
    if (isOther && this.place) this.moveTo(this.place);
  }

  /** Draws these images from now on; whether they are others than before. */
  #use(images) {
    const isOther = this.drawn !== images;
    this.nv.volumes = this.drawn = images;
    [this.nv.back, ...this.nv.overlays] = images;
    return isOther;
  }

  /** Light from the side of who looks, on what has a surface. */
  #light(amount) {
    if (amount === this.shading) return;
    this.shading = amount;
    this.nv.setVolumeRenderIllumination(amount);
  }

  #cover(name) {
    if (this.isSolid && name === "lung" && this.outlined.lung && INSIDE_LUNGS.has(this.solid)) return 0;
    return this.isSolid && this.covers[name] ? SOLID_COVER[name] : this.covers[name];
  }

  /** How strongly NiiVue draws a mask: of slices both are in one image, which their shader reads. */
  #strength(name) {
    return this.isSolid ? this.#cover(name) : Number(name === "lung");
  }

  #colourSlices() {
    const { gl, customSliceShader: shader } = this.nv;
    shader.use(gl);
    for (const [name, colour] of Object.entries(COLOURS)) {
      gl.uniform4f(shader.uniforms[name], ...colour.map((part) => part / 255), this.covers[name]);
      gl.uniform1i(shader.uniforms[`${name}Outlined`], Number(this.outlined[name]));
    }
  }

  // NiiVue draws a mark whole or not at all, and what is no mark as transparent. Even so that has a colour, which edges
  // fade into: that of the lung where it is shown, or lungs would have a seam in the colour of the lesions.
  #palette(name) {
    const marks = Array.from({ length: MOST_MARKS + 1 }, (_, mark) => mark);
    const I = marks.map((mark) => Math.round((255 * mark) / MOST_MARKS));
    const shown = (isShown) => (isShown ? 255 : 0);
    if (!this.isSolid) {
      const [R, G] = [MARKS.lung, MARKS.lesion].map((own) => marks.map((mark) => shown(own.includes(mark))));
      return { R, G, B: marks.map(() => 0), A: marks.map(shown), I };
    }
    const beside = COLOURS[this.#cover("lung") ? "lung" : name];
    const [R, G, B] = [0, 1, 2].map((part) => marks.map((mark) => (MARKS[name].includes(mark) ? COLOURS[name] : beside)[part]));
    return { R, G, B, A: marks.map((mark) => shown(MARKS[name].includes(mark))), I };
  }
}
