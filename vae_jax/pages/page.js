// Reads the content of the page, and makes a section for each model.

const content = withArrays(JSON.parse(document.getElementById("content").textContent));

document.querySelector("h1").textContent = content.title;
document.getElementById("caption").textContent = content.caption;
document.getElementById("numbers").textContent = content.numbers;
document.getElementById("numbers").parentElement.hidden = !content.numbers;

const main = document.querySelector("main");
const planes = content.models.some((model) => model.latentDim === 2);
document.getElementById("help").textContent = planes
  ? "Move the pointer, or the arrow keys, over a plane to decode its latents. A click pins a point; a second one draws the straight path between both."
  : "Each slider moves one latent dimension. Press an image to start from its encoding.";

const views = content.models.map((model) => {
  const view = model.latentDim === 2 ? planeView(content, model) : slidersView(content, model);
  const heading = [element("h2", {}, model.name), element("p", {}, model.description)];
  main.append(element("section", {}, ...heading, ...view.parts));
  return view;
});

if (planes && content.classNames) {
  const legend = content.classNames.map((name) => {
    const mark = element("i");
    mark.style.background = content.colours[name % content.colours.length];
    return element("span", {}, mark, String(name));
  });
  document.getElementById("legend").append("encodings of class", ...legend);
}

DARK.addEventListener("change", () => views.forEach((view) => view.redraw()));
