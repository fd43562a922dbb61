// Cards with a picture: each is a button, and has one beside it that downloads the picture.

const WIDTH = 600; // px of a picture on its own
const ARROW = '<svg viewBox="0 0 16 16" width="13" height="13" aria-hidden="true"><path d="M8 2v7' +
  'M4.8 6.4 8 9.6l3.2-3.2M3 12.8h10" fill="none" stroke="currentColor" stroke-width="1.6"/></svg>';

// A small picture as a file: a size of its own, and white behind it.
function svg_of(drawn) {
  const root = drawn.cloneNode(true), [, , width, height] = root.getAttribute("viewBox")
    .split(" ").map(Number);
  root.setAttribute("width", WIDTH);
  root.setAttribute("height", Math.round(WIDTH * height / width));
  const paper = document.createElementNS(root.namespaceURI, "rect");
  for (const [name, value] of [["width", width], ["height", height], ["fill", "white"]]) {
    paper.setAttribute(name, value);
  }
  root.prepend(paper);
  return new XMLSerializer().serializeToString(root);
}

export function render({ model }) {
  const waiting = new Map();
  let asked = 0;
  const box = document.createElement("div");
  box.className = "cards";
  box.setAttribute("role", "group");
  function card(entry) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "card";
    button.dataset.key = entry.key;
    button.setAttribute("aria-label", entry.hint);
    button.title = entry.hint;
    const picture = document.createElement("div");
    picture.className = "picture";
    picture.innerHTML = entry.picture;
    const title = document.createElement("div");
    title.className = "title";
    const number = document.createElement("span");
    number.className = "number";
    number.style.borderColor = entry.color;
    number.textContent = entry.number;
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = entry.title;
    title.append(number, name);
    button.append(title, picture);
    for (const words of entry.lines) {
      const line = document.createElement("div");
      line.className = "line";
      line.textContent = words;
      button.append(line);
    }
    button.addEventListener("click", () => {
      model.clicks = [model.clicks[0] + 1, entry.key];
    });
    const holder = document.createElement("div");
    holder.className = "holder";
    holder.append(button);
    if (model.has_files && entry.picture) holder.append(download_button(entry, picture));
    return holder;
  }
  // The menu is that of the frame around the page.
  function download_button(entry, picture) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "download";
    button.innerHTML = ARROW;
    button.title = "Download the picture or its data";
    button.setAttribute("aria-label", `Download: ${entry.number} ${entry.title}`.trim());
    button.setAttribute("aria-haspopup", "menu");
    button.setAttribute("aria-expanded", "false");
    const source = {
      svg: async () => svg_of(picture.querySelector("svg")),
      file: (kind) => new Promise((done) => {
        asked += 1;
        waiting.set(asked, done);
        model.asked = [asked, entry.key, kind];
      }),
    };
    button.addEventListener("click", () => {
      document.dispatchEvent(new CustomEvent("kpms-download", { detail: { source, button } }));
    });
    return button;
  }
  function mark() {
    for (const button of box.querySelectorAll("button.card")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.key) === model.chosen));
    }
  }
  function draw() {
    const focused = box.getRootNode().activeElement?.dataset?.key;
    box.setAttribute("aria-label", model.label);
    box.style.setProperty("--least", model.width_of_card + "px");
    box.replaceChildren(...model.cards.map(card));
    mark();
    if (focused !== undefined) {
      box.querySelector(`.card[data-key="${focused}"]`)?.focus();
    }
  }
  draw();
  model.on("answer", () => {
    const { number } = model.answer;
    waiting.get(number)?.(model.answer);
    waiting.delete(number);
  });
  model.on("cards", draw);
  model.on("chosen", mark);
  return box;
}
