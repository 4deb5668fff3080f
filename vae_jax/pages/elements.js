// Elements of the page that both views use. Texts become text nodes, so that no name is read as HTML.

const DARK = window.matchMedia("(prefers-color-scheme: dark)");

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** The colour of a class, lighter on a dark background. */
function colourOf(content, label) {
  const colour = content.colours[label % content.colours.length];
  return DARK.matches ? `color-mix(in srgb, ${colour} 65%, white)` : colour;
}

/** A canvas that shows decoded images: `show(pixels)`. */
function picture(content, className, label) {
  const [height, width, channels] = content.event;
  const canvas = element("canvas", { width, height, className: `image ${channels === 1 ? "grey " : ""}${className}` });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  const context = canvas.getContext("2d");
  return {
    canvas,
    show(pixels) {
      const bytes = bytesOfImage(pixels, channels, content.range, DARK.matches);
      context.putImageData(new ImageData(bytes, width, height), 0, 0);
    },
  };
}

/** The decoder of a model: latents and a label, which is ignored if the model has no classes, to pixels. */
function decoderOf(model) {
  return (z, label) =>
    forward(model.network, z, Array.from({ length: model.classes || 0 }, (_, each) => Number(each === label)));
}

/** One button per class, each with the image of its label at the current latents; empty without classes. */
function labelChoice(content, model, decode, choose) {
  const choices = Array.from({ length: model.classes || 0 }, (_, label) => {
    const { canvas, show } = picture(content, "small", `label ${label}`);
    const button = element("button", { type: "button", onclick: () => choose(label) }, canvas, String(label));
    return { button, show };
  });
  const group = element("div", { className: "strip" }, ...choices.map((choice) => choice.button));
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "label");
  return {
    group,
    show(z, chosen) {
      choices.forEach(({ button, show }, label) => {
        show(decode(z, label));
        button.setAttribute("aria-pressed", label === chosen);
      });
    },
  };
}
