// The view of a model with any number of latent dimensions: a slider for each, and for each attribute vector.

function slidersView(content, model) {
  const decode = decoderOf(model);
  const { vectors } = content;
  const kinds = vectors.length ? Object.keys(vectors[0].kinds) : [];
  const big = picture(content, "big", "decoded image");
  const labels = labelChoice(content, model, decode, (label) => update({ label }));
  const state = {
    z: new Float32Array(model.latentDim),
    amounts: vectors.map(() => 0),
    kind: kinds[kinds.length - 1],
    label: 0,
    draw: 0,
  };
  const classified = content.classifier ? meters(content.classifier) : null;

  function update(change) {
    Object.assign(state, change);
    const z = edited(state.z, vectors, state.kind, state.amounts);
    const pixels = decode(z, state.label);
    big.show(pixels);
    if (model.classes) labels.show(z, state.label);
    if (classified) classified.show(pixels);
    if ("z" in change) dimensions.forEach((each) => each.set(state.z[each.index]));
    if ("amounts" in change) strengths.forEach((each, n) => each.set(state.amounts[n]));
  }

  /** Replaces one entry of a list in the state. */
  const replaced = (list, index, value) => list.map((old, i) => (i === index ? value : old));

  const dimensions = model.dimensions.map(({ index, carries, low, high }) => ({
    index,
    ...slider(`z${index + 1}`, carries, low, high, (value) => update({ z: replaced(state.z, index, value) })),
  }));
  const strengths = vectors.map(({ name }, n) =>
    slider(name, "", -1, 3, (value) => update({ amounts: replaced(state.amounts, n, value) })),
  );
  const start = (z, label) => update({ z, label, amounts: vectors.map(() => 0) });
  const rowOf = (rows, n) => rows.slice(n * model.latentDim, (n + 1) * model.latentDim);
  const buttons = element(
    "div",
    { className: "controls" },
    element(
      "button",
      {
        type: "button",
        onclick: () => {
          start(rowOf(model.draws, state.draw), state.label);
          state.draw = (state.draw + 1) % (model.draws.length / model.latentDim);
        },
      },
      "draw from the prior",
    ),
    element(
      "button",
      { type: "button", onclick: () => start(new Float32Array(model.latentDim), state.label) },
      "z = 0",
    ),
  );
  const starts = element("div", { className: "strip" });
  const count = model.starts ? model.starts.length / model.latentDim : 0;
  const thumbnails = Array.from({ length: count }, (_, n) => {
    const z = rowOf(model.starts, n);
    const label = content.labels ? content.labels[n] : 0;
    const { canvas, show } = picture(content, "small", `test image ${n + 1}, encoded and decoded`);
    starts.append(element("button", { type: "button", onclick: () => start(z, label) }, canvas));
    return () => show(decode(z, label));
  });
  /** One thumbnail at a time, so that the page stays responsive. */
  function showThumbnails(from = 0) {
    if (from === thumbnails.length) return;
    thumbnails[from]();
    setTimeout(showThumbnails, 0, from + 1);
  }

  const kindChoice = kinds.map((kind) =>
    element(
      "label",
      {},
      element("input", { type: "radio", name: "kind", checked: kind === state.kind, onchange: () => update({ kind }) }),
      `${kind} vector`,
    ),
  );
  const all = element("details", { open: !vectors.length }, element("summary", {}, "latent dimensions"));
  all.append(element("div", { className: "sliders" }, ...dimensions.map((each) => each.row)));
  const side = element("div", { className: "side" });
  if (vectors.length) {
    side.append(
      element("div", { className: "sliders" }, ...strengths.map((each) => each.row)),
      element("div", { className: "controls" }, ...(kinds.length > 1 ? kindChoice : [])),
    );
  }
  if (classified) side.append(element("p", {}, "probabilities of a classifier"), classified.table);
  side.append(all);
  const shown = element("div", { className: "shown" }, big.canvas, buttons, labels.group);
  const parts = [element("div", { className: "view" }, shown, side)];
  if (count) parts.push(element("p", {}, "Start from a test image, encoded and decoded:"), starts);
  const redraw = () => {
    update({});
    showThumbnails();
  };
  start(count ? rowOf(model.starts, 0) : state.z, content.labels ? content.labels[0] : 0);
  showThumbnails();
  return { parts, redraw };
}

/** A slider with its name, what it carries, and its value. */
function slider(name, carries, low, high, change) {
  const value = element("output");
  const input = element("input", { type: "range", min: low, max: high, step: 0.01 });
  const set = (number) => {
    input.value = number;
    value.value = number.toFixed(2);
  };
  input.addEventListener("input", () => {
    value.value = input.valueAsNumber.toFixed(2);
    change(input.valueAsNumber);
  });
  set(0);
  const text = element("span", {}, name, element("small", {}, carries));
  return { row: element("label", { className: "slider" }, text, input, value), set };
}

/** Meters of the probabilities of a classifier, which takes images clipped to [0, 1]. */
function meters(classifier) {
  const rows = classifier.names.map((name) => {
    const meter = element("meter", { min: 0, max: 1 });
    const value = element("output");
    return { meter, value, row: element("label", { className: "slider" }, element("span", {}, name), meter, value) };
  });
  return {
    table: element("div", { className: "sliders" }, ...rows.map((each) => each.row)),
    show(pixels) {
      const clipped = pixels.map((pixel) => Math.min(Math.max(pixel, 0), 1));
      forward(classifier.network, clipped).forEach((probability, n) => {
        rows[n].meter.value = probability;
        rows[n].value.value = `${Math.round(100 * probability)} %`;
      });
    },
  };
}
