// The view of a model with any number of latent dimensions: a slider for each, and for each attribute vector.

function slidersView(content, model) {
  const decode = decoderOf(model);
  const { vectors } = content;
  const kinds = vectors.length ? Object.keys(vectors[0].kinds) : [];
  const big = picture(content, "big", "decoded image");
  const labels = labelChoice(content, model, decode, (label) => update({ label }));
  const classified = content.classifier ? meters(content.classifier) : null;
  const state = { kind: kinds[kinds.length - 1], drawn: 0 }; // and z, label and amounts of the vectors, by `start`

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

  const start = (z, label) => update({ z, label, amounts: vectors.map(() => 0) });
  const replaced = (list, index, value) => list.map((old, i) => (i === index ? value : old));
  const dimensions = model.dimensions.map(({ index, carries, low, high }) => ({
    index,
    ...slider(`z${index + 1}`, carries, low, high, (value) => update({ z: replaced(state.z, index, value) })),
  }));
  const strengths = vectors.map(({ name }, n) =>
    slider(name, "", -1, 3, (value) => update({ amounts: replaced(state.amounts, n, value) })),
  );
  const zero = new Float32Array(model.latentDim);
  const draws = rowsOf(model.draws, model.latentDim);
  const buttons = element(
    "div",
    { className: "controls" },
    button("draw from the prior", () => start(draws[state.drawn++ % draws.length], state.label)),
    button("z = 0", () => start(zero, state.label)),
  );
  const examples = startChoice(content, model, decode, start);

  const side = element("div", { className: "side" });
  if (vectors.length) side.append(sliders(strengths), kindChoice(kinds, state.kind, (kind) => update({ kind })));
  if (classified) side.append(element("p", {}, "probabilities of a classifier"), classified.table);
  const all = element("details", { open: !vectors.length }, element("summary", {}, "latent dimensions"));
  all.append(sliders(dimensions));
  side.append(all);
  const shown = element("div", { className: "shown" }, big.canvas, buttons, labels.group);
  const { z, label } = examples.first || { z: zero, label: 0 };
  start(z, label);
  examples.show();
  return {
    parts: [element("div", { className: "view" }, shown, side), ...examples.parts],
    redraw() {
      update({});
      examples.show();
    },
  };
}

const button = (text, onclick) => element("button", { type: "button", onclick }, text);

const sliders = (rows) => element("div", { className: "sliders" }, ...rows.map((each) => each.row));

/** Rows of an array [n, size]. */
function rowsOf(array, size) {
  return Array.from({ length: array.length / size }, (_, n) => array.subarray(n * size, (n + 1) * size));
}

/** A choice between several kinds of vector; empty if there is one. */
function kindChoice(kinds, chosen, choose) {
  const choices = kinds.map((kind) => {
    const input = { type: "radio", name: "kind", checked: kind === chosen, onchange: () => choose(kind) };
    return element("label", {}, element("input", input), `${kind} vector`);
  });
  return element("div", { className: "controls" }, ...(kinds.length > 1 ? choices : []));
}

/** Buttons with decoded encodings of examples, which start from these; no parts without encodings. */
function startChoice(content, model, decode, start) {
  const examples = rowsOf(model.starts || [], model.latentDim).map((z, n) => {
    const { canvas, show } = picture(content, "small", `test image ${n + 1}, encoded and decoded`);
    return { z, label: content.labels ? content.labels[n] : 0, canvas, show };
  });
  const choices = examples.map(({ z, label, canvas }) => button(canvas, () => start(z, label)));
  const strip = element("div", { className: "strip" }, ...choices);
  return {
    first: examples[0],
    parts: choices.length ? [element("p", {}, "Start from a test image, encoded and decoded:"), strip] : [],
    /** One image at a time, so that the page stays responsive. */
    show(from = 0) {
      if (from === examples.length) return;
      const { z, label, show } = examples[from];
      show(decode(z, label));
      setTimeout(() => this.show(from + 1));
    },
  };
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
    table: sliders(rows),
    show(pixels) {
      const clipped = pixels.map((pixel) => Math.min(Math.max(pixel, 0), 1));
      forward(classifier.network, clipped).forEach((probability, n) => {
        rows[n].meter.value = probability;
        rows[n].value.value = `${Math.round(100 * probability)} %`;
      });
    },
  };
}
