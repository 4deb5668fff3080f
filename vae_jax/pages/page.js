// Reads the content of the page, and makes a section for each model.

const content = withArrays(JSON.parse(document.getElementById("content").textContent));

document.querySelector("h1").textContent = content.title;
document.getElementById("caption").textContent = content.caption;
document.getElementById("numbers").textContent = content.numbers;
document.getElementById("numbers").parentElement.hidden = !content.numbers;

const HELP = {
  plane:
    "Move the pointer, or press arrows, over a plane to decode its latents. " +
    "Two clicks, or Enter, draw the straight path between two points.",
  sliders:
    "Each slider moves one latent dimension. They are sorted by the KL of each in nats, or else by the standard " +
    "deviation (s.d.) of the encodings.",
  vectors: "Each slider adds a multiple of an attribute vector to the encoding of a face.",
};
const isPlane = (model) => model.latentDim === 2;
const kinds = new Set(content.models.map((model) => (isPlane(model) ? "plane" : content.vectors.length ? "vectors" : "sliders")));
document.getElementById("help").textContent = [...kinds].map((kind) => HELP[kind]).join(" ");

const views = content.models.map((model) => {
  const view = isPlane(model) ? planeView(content, model) : slidersView(content, model);
  const heading = model.name ? [element("h2", {}, model.name)] : [];
  document.querySelector("main").append(element("section", {}, ...heading, element("p", {}, model.description), ...view.parts));
  return view;
});

if (kinds.has("plane") && content.classes) {
  const marks = content.classes.map(() => element("i"));
  const colour = () => marks.forEach((mark, i) => (mark.style.background = colourOf(content, content.classes[i])));
  const texts = marks.map((mark, i) => element("span", {}, mark, String(content.classes[i])));
  document.getElementById("legend").append("encodings of class", ...texts);
  views.push({ redraw: colour });
  colour();
}

DARK.addEventListener("change", () => views.forEach((view) => view.redraw()));
