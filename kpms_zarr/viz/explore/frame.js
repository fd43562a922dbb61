// What every page has: a button that copies its address, the keys that it knows (?), and for every
// figure of Bokeh a button that downloads the picture, or its data. Figures come and go, so that
// they are looked for again and again: a page has to do nothing for it. Cards have buttons of their
// own, which ask for the menu by an event "kpms-download" at the document.

const LOOK_EVERY = 700; // ms
const SCALE = 2; // px of a PNG by px of the page
const KINDS = [["png", "Picture (PNG)"], ["svg", "Picture to edit (SVG)"], ["csv", "Data (CSV)"]];
const ARROW = '<svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true"><path d="M8 2v7' +
  'M4.8 6.4 8 9.6l3.2-3.2M3 12.8h10" fill="none" stroke="currentColor" stroke-width="1.6"/></svg>';
const BUTTON = "position:absolute;right:1px;bottom:1px;z-index:3;width:22px;height:20px;padding:0;" +
  "display:flex;align-items:center;justify-content:center;border:1px solid #9aa5b1;" +
  "border-radius:4px;background:#ffffffe0;color:#1f2933;cursor:pointer";

function element(name, properties = {}, ...children) {
  const one = Object.assign(document.createElement(name), properties);
  one.append(...children);
  return one;
}

// ------------------------------------------------------------------ the address

// Browsers keep the clipboard from pages of other machines that come without encryption; there a
// field that is selected and copied does.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = element("textarea", { value: text });
    field.style.cssText = "position:fixed;top:0;opacity:0";
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

// ------------------------------------------------------------------ pictures

// A figure as text of an SVG: white behind it, the picture of a video where it has one.
async function svg_of(view) {
  const text = await (await view.export("svg", false).to_blob()).text();
  const page = new DOMParser().parseFromString(text, "image/svg+xml"), root = page.documentElement;
  if (root.nodeName !== "svg") throw new Error("Bokeh made no SVG");
  const space = root.namespaceURI, { width, height } = view.bbox;
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  root.setAttribute("width", width);
  root.setAttribute("height", height);
  for (const image of root.querySelectorAll("image")) {
    image.setAttribute("style", "image-rendering:pixelated");
  }
  const below = [];
  const paper = page.createElementNS(space, "rect");
  for (const [name, value] of [["width", width], ["height", height], ["fill", "white"]]) {
    paper.setAttribute(name, value);
  }
  below.push(paper);
  const canvas = view.shadow_el.querySelector("canvas.video");
  if (canvas?.width) {
    const holder = canvas.parentElement, part = page.createElementNS(space, "svg");
    const picture = page.createElementNS(space, "image");
    const px = (node, name) => parseFloat(node.style[name]) || 0;
    for (const [node, of] of [[part, holder], [picture, canvas]]) {
      for (const [to, from] of [["x", "left"], ["y", "top"], ["width", "width"],
        ["height", "height"]]) node.setAttribute(to, px(of, from));
    }
    picture.setAttribute("preserveAspectRatio", "none");
    picture.setAttribute("href", canvas.toDataURL("image/jpeg", 0.9));
    part.append(picture);
    below.push(part);
  }
  root.prepend(...below);
  return new XMLSerializer().serializeToString(root);
}

async function png_of(text) {
  const root = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  const [width, height] = ["width", "height"].map((name) => Number(root.getAttribute(name)));
  const image = new Image();
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  try {
    image.src = url;
    await image.decode();
    const canvas = element("canvas", { width: SCALE * width, height: SCALE * height });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((done, fail) => canvas.toBlob(
      (blob) => (blob ? done(blob) : fail(new Error("the browser made no PNG"))), "image/png"));
  } finally {
    URL.revokeObjectURL(url);
  }
}

function save(name, blob) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// ------------------------------------------------------------------ the component

export function render({ model }) {
  const box = element("div", { className: "frame-tools" });
  const link = element("button", { type: "button", textContent: "Copy link" });
  const help = element("button", { type: "button", textContent: "Keys" }, element("kbd", {
    textContent: "?" }));
  link.title = "Copy the address of what is shown, to send or to keep";
  help.title = "The keys of this page (press ?)";
  help.setAttribute("aria-keyshortcuts", "?");
  const said = element("div", { className: "said" });
  said.setAttribute("role", "status");
  const menu = element("div", { className: "menu", hidden: true });
  menu.setAttribute("role", "menu");
  menu.setAttribute("aria-label", "Download");
  const dialog = element("dialog");
  dialog.setAttribute("aria-label", "Keys");
  box.append(said, link, help, menu, dialog);

  let quiet = 0, owner = null, asked = 0;
  const waiting = new Map();
  function say(words) {
    said.textContent = words;
    clearTimeout(quiet);
    quiet = setTimeout(() => { said.textContent = ""; }, 6000);
  }

  link.addEventListener("click", async () => {
    const held = new URLSearchParams(location.search).has("token")
      ? " With its token it opens this study for whoever has it." : "";
    say(await copy(location.href) ? `Link copied.${held}` : "The browser does not let pages copy: " +
      "take the address from its own field.");
  });

  // ---------------------------------------------------------------- keys

  function open_help() {
    const rows = (title, keys) => {
      const body = element("tbody", {}, ...keys.map(([key, what]) => element("tr", {},
        element("td", {}, ...key.split(" ").map((one) => element("kbd", { textContent: one }))),
        element("td", { textContent: what }))));
      return [element("h3", { textContent: title }), element("table", {}, body)];
    };
    const shut = element("button", { type: "button", textContent: "Close" });
    shut.addEventListener("click", () => dialog.close());
    const own = model.keys.length ? rows(`On the page ${model.page_title}`, model.keys)
      : [element("p", { textContent: `The page ${model.page_title} has no keys of its own.` })];
    dialog.replaceChildren(element("h2", { textContent: "Keys" }), ...own,
      ...rows("On every page", model.general_keys), shut);
    if (!dialog.open) dialog.showModal();
  }
  help.addEventListener("click", open_help);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  const is_text = (node) => /^(INPUT|TEXTAREA|SELECT)$/.test(node?.tagName ?? "") &&
    !/^(checkbox|radio|button|range)$/.test(node.type) || node?.isContentEditable;
  function key(event) {
    if (!box.isConnected) { document.removeEventListener("keydown", key); return; }
    if (event.ctrlKey || event.altKey || event.metaKey || is_text(event.composedPath()[0])) return;
    if (event.key === "?") {
      if (dialog.open) dialog.close(); else open_help();
    } else if (event.key === "/" && !dialog.open) {
      const field = find(document, 'input[data-chooser="Session"]');
      if (!field) return;
      field.focus();
    } else return;
    event.preventDefault();
  }
  document.addEventListener("keydown", key);
  function find(root, selector) {
    const here = root.querySelector(selector);
    if (here) return here;
    for (const node of root.querySelectorAll("*")) {
      const below = node.shadowRoot && find(node.shadowRoot, selector);
      if (below) return below;
    }
    return null;
  }

  // ---------------------------------------------------------------- downloads

  function shut_menu(back = false) {
    if (menu.hidden) return;
    menu.hidden = true;
    owner?.button.setAttribute("aria-expanded", "false");
    if (back) owner?.button.focus();
  }
  // A source gives its picture, svg(), and of a kind of file, file(kind), the name and data.
  function open_menu(source, button) {
    shut_menu();
    owner = { source, button };
    menu.hidden = false;
    button.setAttribute("aria-expanded", "true");
    const at = button.getBoundingClientRect(), { width, height } = menu.getBoundingClientRect();
    const top = at.bottom + height + 4 < innerHeight ? at.bottom + 2 : at.top - height - 2;
    menu.style.top = `${Math.max(2, top)}px`;
    menu.style.left = `${Math.max(2, Math.min(at.right, innerWidth - 4) - width)}px`;
    menu.firstChild.focus();
  }
  for (const [kind, words] of KINDS) {
    const item = element("button", { type: "button", textContent: words });
    item.setAttribute("role", "menuitem");
    item.dataset.kind = kind;
    item.addEventListener("click", () => {
      const { source } = owner;
      shut_menu(true);
      download(source, kind);
    });
    menu.append(item);
  }
  menu.addEventListener("keydown", (event) => {
    const items = [...menu.children], here = items.indexOf(event.target);
    const to = { ArrowDown: (here + 1) % items.length, End: items.length - 1, Home: 0,
      ArrowUp: (here + items.length - 1) % items.length }[event.key];
    if (to !== undefined) items[to].focus();
    else if (event.key === "Escape") shut_menu(true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  menu.addEventListener("focusout", (event) => {
    if (!menu.contains(event.relatedTarget)) shut_menu();
  });
  addEventListener("scroll", () => shut_menu(), { passive: true });

  // The server gives the name of the file, and the data; the picture is made here.
  async function download(source, kind) {
    say("Preparing the file ...");
    const { name, text, error } = await source.file(kind);
    if (error) { say(error); return; }
    try {
      const blob = kind === "csv" ? new Blob([text], { type: "text/csv;charset=utf-8" })
        : kind === "png" ? await png_of(await source.svg())
          : new Blob([await source.svg()], { type: "image/svg+xml" });
      save(name, blob);
      say(`Downloaded ${name}`);
    } catch (problem) {
      say(`The browser could not make the file: ${problem.message ?? problem}`);
    }
  }
  const source_of = (view) => ({
    svg: () => svg_of(view),
    file: (kind) => new Promise((done) => {
      asked += 1;
      waiting.set(asked, done);
      model.asked = [asked, view.model.id, kind];
    }),
  });
  model.on("answer", () => {
    const { number } = model.answer;
    waiting.get(number)?.(model.answer);
    waiting.delete(number);
  });
  function from_card({ detail }) {
    if (box.isConnected) open_menu(detail.source, detail.button);
    else document.removeEventListener("kpms-download", from_card);
  }
  document.addEventListener("kpms-download", from_card);

  function decorate() {
    if (!box.isConnected) return;
    const views = window.Bokeh?.index?.query((view) => view.model.type === "Figure") ?? [];
    for (const view of views) {
      const root = view.shadow_el;
      if (!root || root.querySelector("button.kpms-download")) continue;
      const title = view.model.title?.text || view.model.below?.[0]?.axis_label || "this picture";
      const button = element("button", { type: "button", className: "kpms-download",
        innerHTML: ARROW, title: "Download the picture or its data" });
      button.style.cssText = BUTTON;
      button.setAttribute("aria-label", `Download: ${title}`);
      button.setAttribute("aria-haspopup", "menu");
      button.setAttribute("aria-expanded", "false");
      for (const event of ["pointerdown", "pointerup", "wheel", "keydown"]) {
        button.addEventListener(event, (one) => one.stopPropagation());
      }
      button.addEventListener("click", (event) => {
        event.stopPropagation();
        open_menu(source_of(view), button);
      });
      root.append(button);
    }
  }
  const timer = setInterval(() => { if (box.isConnected) decorate(); else clearInterval(timer); },
    LOOK_EVERY);
  return box;
}
