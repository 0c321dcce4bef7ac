// A square to draw on, to drop a picture on, to paste one into: what a translator is given.

import { h, slider } from "./dom.js";

const SIZE = 256; // the pad's own pixels; what is sent is scaled to the model's size
const COLOURS = ["#111111", "#e03131", "#2f9e44", "#1971c2", "#f2c94c", "#ffffff"];
const NAMES = ["Black", "Red", "Green", "Blue", "Yellow", "White"];

/** A pad for pictures of the size that `size()` gives; `onchange` hears of every new picture. */
export function sketchpad(size, onchange) {
  const canvas = h("canvas", {
    width: SIZE, height: SIZE, class: "pad", tabIndex: 0,
    "aria-label": "Drawing pad: draw with the pointer, drop or paste a picture, or choose a file below",
  });
  const pen = canvas.getContext("2d");
  const width = slider("Pen", { min: 4, max: 48, step: 2, value: 10, name: "pen" });
  const file = h("input", { type: "file", accept: "image/*", class: "hidden-file", id: "picture-file", onchange: () => take(file.files[0]) });
  let colour = COLOURS[0];
  let at = null;

  const swatches = h("div", { class: "swatches", role: "group", "aria-label": "Colour" }, COLOURS.map((value, index) => {
    const swatch = h("button", {
      type: "button", "aria-label": NAMES[index], "aria-pressed": String(value === colour),
      onclick: () => {
        colour = value;
        for (const other of swatches.children) other.setAttribute("aria-pressed", String(other === swatch));
      },
    });
    swatch.style.background = value;
    return swatch;
  }));

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * SIZE / box.width, (event.clientY - box.top) * SIZE / box.height];
  };

  function stroke(event) {
    if (!at) return;
    const to = place(event);
    Object.assign(pen, { lineCap: "round", lineJoin: "round", lineWidth: Number(width.input.value), strokeStyle: colour });
    pen.beginPath();
    pen.moveTo(...at);
    pen.lineTo(...to);
    pen.stroke();
    at = to;
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    at = place(event);
    stroke(event);
  });
  canvas.addEventListener("pointermove", stroke);
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => { if (at) { at = null; onchange(); } });
  }
  canvas.addEventListener("dragover", (event) => { event.preventDefault(); canvas.classList.add("over"); });
  canvas.addEventListener("dragleave", () => canvas.classList.remove("over"));
  canvas.addEventListener("drop", (event) => {
    event.preventDefault();
    canvas.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  canvas.addEventListener("paste", (event) => take([...event.clipboardData.files][0]));

  async function take(blob) {
    if (!blob) return;
    const url = URL.createObjectURL(blob);
    try { await load(url); } finally { URL.revokeObjectURL(url); }
  }

  /** Show the picture at an address, its middle square, and tell of it. */
  async function load(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    blank();
    const side = Math.min(image.naturalWidth, image.naturalHeight);
    pen.imageSmoothingEnabled = side > SIZE;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(image, (image.naturalWidth - side) / 2, (image.naturalHeight - side) / 2, side, side, 0, 0, SIZE, SIZE);
    await onchange();
  }

  function blank() {
    pen.fillStyle = "#ffffff";
    pen.fillRect(0, 0, SIZE, SIZE);
  }

  /** What is on the pad at the model's size, as base64 of a PNG. */
  function picture() {
    const [across, down] = size();
    const small = h("canvas", { width: across, height: down });
    const context = small.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(canvas, 0, 0, across, down);
    return small.toDataURL("image/png").split(",")[1];
  }

  blank();
  const element = h("div", { class: "sketchpad" }, canvas, swatches, width,
    h("div", { class: "row" },
      h("label", { class: "button", htmlFor: "picture-file" }, "Open a picture"), file,
      h("button", { type: "button", onclick: () => { blank(); onchange(); } }, "Clear")));
  return Object.assign(element, { load, picture });
}
