// The view of a model with two latent dimensions: its plane, and the image that the pointer's position decodes to.

const FRAMES = 11; // images of a path, both ends included
const STEP = 0.02; // of the arrow keys, as a share of the width

function planeView(content, model) {
  const decode = decoderOf(model);
  const view = windowOf(model.circle);
  const big = picture(content, "big", "decoded image at the pointer");
  const frames = Array.from({ length: FRAMES }, (_, i) => picture(content, "small", `image ${i + 1} of the path`));
  const base = element("canvas"); // encodings, circle and lattice
  const top = element("canvas", { className: "top", tabIndex: 0 }); // pins, path and pointer
  top.setAttribute("role", "application");
  top.setAttribute("aria-label", "plane of latents: arrows move, Enter pins, Escape clears");
  const position = element("output");
  const path = element("div", { className: "strip path", hidden: true }, ...frames.map((frame) => frame.canvas));
  const labels = labelChoice(content, model, decode, (label) => update({ label }));
  const state = { z: model.circle.centre, pins: [], label: 0, encodings: true, circle: true, lattice: false };
  let lattice = null; // the decoded lattice as a canvas, made when it is needed

  /** Shows what changed: the position decodes to another image, pins to another path. */
  function update(change) {
    Object.assign(state, change);
    big.show(decode(state.z, state.label));
    if (model.classes) labels.show(state.z, state.label);
    position.value = `z = (${state.z.map((value) => value.toFixed(2)).join(", ")})`;
    if ("label" in change) lattice = null;
    if ("pins" in change || "label" in change) showPath();
    if ("label" in change || "encodings" in change || "circle" in change || "lattice" in change) drawBase();
    drawTop();
  }

  function pin() {
    update({ pins: state.pins.length === 1 ? [state.pins[0], state.z] : [state.z] });
  }

  function showPath() {
    path.hidden = state.pins.length < 2;
    if (path.hidden) return;
    straightPath(...state.pins, FRAMES).forEach((z, i) => frames[i].show(decode(z, state.label)));
  }

  /** A context with the size of the plane as its unit, cleared. */
  function cleared(canvas) {
    const size = Math.round(top.clientWidth * window.devicePixelRatio) || 1;
    canvas.width = canvas.height = size;
    return { context: canvas.getContext("2d"), size };
  }

  function drawBase() {
    const { context, size } = cleared(base);
    const style = getComputedStyle(base);
    if (state.lattice) {
      lattice = lattice || decodedLattice();
      const first = view.toShare(model.lattice.subarray(0, 2));
      const last = view.toShare(model.lattice.subarray(-2));
      const cell = (last[0] - first[0]) / (content.latticeSize - 1);
      const width = (last[0] - first[0] + cell) * size;
      context.drawImage(lattice, (first[0] - cell / 2) * size, (first[1] - cell / 2) * size, width, width);
    }
    if (state.encodings && model.points) drawPoints(context, size);
    if (state.circle && model.points) {
      context.beginPath();
      context.arc(0.5 * size, 0.5 * size, (model.circle.radius / view.reach) * 0.5 * size, 0, 2 * Math.PI);
      context.strokeStyle = style.color;
      context.lineWidth = window.devicePixelRatio;
      context.stroke();
    }
  }

  function drawPoints(context, size) {
    const side = Math.max(1.5, Math.min(5, 300 / Math.sqrt(model.points.length))) * window.devicePixelRatio;
    context.globalAlpha = state.lattice ? 0.35 : 0.7;
    const colours = (content.classes || [0]).map((label) => [label, colourOf(content, label)]);
    const byLabel = Object.fromEntries(colours);
    for (let i = 0; i < model.points.length / 2; i++) {
      const [right, down] = view.toShare(model.points.subarray(2 * i, 2 * i + 2));
      context.fillStyle = byLabel[content.labels ? content.labels[i] : 0];
      context.fillRect(right * size - side / 2, down * size - side / 2, side, side);
    }
    context.globalAlpha = 1;
  }

  function decodedLattice() {
    const [height, width] = content.event;
    const sheet = element("canvas", { width: content.latticeSize * width, height: content.latticeSize * height });
    const context = sheet.getContext("2d");
    const one = picture(content, "", "");
    for (let i = 0; i < model.lattice.length / 2; i++) {
      one.show(decode(model.lattice.subarray(2 * i, 2 * i + 2), state.label));
      const row = Math.floor(i / content.latticeSize);
      context.drawImage(one.canvas, (i - row * content.latticeSize) * width, row * height);
    }
    return sheet;
  }

  function drawTop() {
    const { context, size } = cleared(top);
    const unit = window.devicePixelRatio;
    const style = getComputedStyle(top);
    const mark = (z, radius, fill) => {
      const [right, down] = view.toShare(z);
      context.beginPath();
      context.arc(right * size, down * size, radius * unit, 0, 2 * Math.PI);
      context.fillStyle = fill;
      context.fill();
      context.stroke();
    };
    context.lineWidth = 2 * unit;
    context.strokeStyle = style.color;
    if (state.pins.length === 2) {
      context.beginPath();
      state.pins.map(view.toShare).forEach(([right, down]) => context.lineTo(right * size, down * size));
      context.stroke();
      straightPath(...state.pins, FRAMES).forEach((z) => mark(z, 2, style.color));
    }
    state.pins.forEach((z) => mark(z, 5, style.color));
    mark(state.z, 7, "transparent");
  }

  const positionOf = (event) => {
    const box = top.getBoundingClientRect();
    return view.toLatent((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  let pressed = null;
  top.addEventListener("pointermove", (event) => update({ z: view.clamped(positionOf(event)) }));
  top.addEventListener("pointerdown", (event) => {
    pressed = event;
    update({ z: view.clamped(positionOf(event)) });
  });
  top.addEventListener("pointerup", (event) => {
    // A drag explores and a click pins.
    if (pressed && Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) < 5) pin();
    pressed = null;
  });
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  top.addEventListener("keydown", (event) => {
    const step = 2 * view.reach * STEP * (event.shiftKey ? 5 : 1);
    if (event.key in arrows) update({ z: view.clamped(state.z.map((value, i) => value + step * arrows[event.key][i])) });
    else if (event.key === "Enter" || event.key === " ") pin();
    else if (event.key === "Escape") update({ pins: [] });
    else return;
    event.preventDefault();
  });

  const switches = (model.points ? ["encodings", "circle", "lattice"] : []).map((name) => {
    const input = element("input", {
      type: "checkbox",
      checked: state[name],
      onchange: () => update({ [name]: input.checked }),
    });
    return element("label", {}, input, name);
  });
  const plane = element("div", { className: "plane" }, base, top);
  const controls = element("div", { className: "controls" }, position, ...switches);
  const side = element("div", { className: "side" }, big.canvas, controls);
  new ResizeObserver(() => update({ label: state.label })).observe(plane);
  return {
    parts: [element("div", { className: "view" }, plane, side), labels.group, path],
    redraw: () => update({ label: state.label, pins: state.pins }),
  };
}
