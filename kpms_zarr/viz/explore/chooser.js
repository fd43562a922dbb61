// A field in which one of many things is chosen: typing narrows the list (the combobox pattern of
// the WAI-ARIA practices). At most MOST of the matches are drawn, so that a thousand are no more
// work than a hundred.
const MOST = 200;
let count = 0;

export function render({ model }) {
  const id = `chooser-${count++}`;
  const box = document.createElement("div");
  box.className = "chooser";
  const label = document.createElement("label");
  label.htmlFor = id;
  const field = document.createElement("div");
  field.className = "field";
  const chip = document.createElement("span");
  chip.className = "chip";
  chip.setAttribute("aria-hidden", "true");
  const input = document.createElement("input");
  Object.assign(input, { id, type: "text", autocomplete: "off", spellcheck: false });
  input.dataset.chooser = model.label;
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-controls", `${id}-list`);
  const list = document.createElement("ul");
  list.id = `${id}-list`;
  list.hidden = true;
  list.setAttribute("role", "listbox");
  const said = document.createElement("div");
  said.className = "said";
  said.setAttribute("role", "status");
  field.append(chip, input);
  box.append(label, field, list, said);

  let shown = [], active = -1, found = null;

  const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  function index() {
    found = model.options.map((one) => ({
      one, text: fold(one.text), all: fold(`${one.text} ${one.detail ?? ""} ${one.find ?? ""}`),
    }));
  }
  const chosen = () => model.options.find((one) => one.value === model.value);

  // What matches, exact ones first, then those that begin so.
  function matches(typed) {
    const wanted = fold(typed).trim(), words = wanted.split(/\s+/).filter(Boolean);
    if (!words.length) return found.map(({ one }) => one);
    const rank = ({ one, text }) => (text === wanted || one.value === wanted ? 0
      : text.startsWith(wanted) ? 1 : 2);
    return found.filter(({ all }) => words.every((word) => all.includes(word)))
      .map((entry, place) => [rank(entry), place, entry.one])
      .sort(([a, i], [b, j]) => a - b || i - j).map(([, , one]) => one);
  }

  function item(one, place) {
    const row = document.createElement("li");
    row.id = `${id}-${place}`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(one.value === model.value));
    if (one.color) {
      const color = document.createElement("span");
      color.className = "chip";
      color.style.background = one.color;
      row.append(color);
    }
    const text = document.createElement("span");
    text.className = "text";
    text.textContent = one.text;
    row.append(text);
    if (one.detail) {
      const detail = document.createElement("span");
      detail.className = "detail";
      detail.textContent = one.detail;
      row.append(detail);
    }
    row.addEventListener("pointerdown", (event) => { event.preventDefault(); choose(one); });
    return row;
  }

  function fill(typed) {
    const all = matches(typed);
    shown = all.slice(0, MOST);
    list.replaceChildren(...shown.map(item));
    const more = all.length - shown.length;
    said.textContent = all.length ? `${all.length.toLocaleString("en")} of ` +
      `${found.length.toLocaleString("en")}${more ? `, the first ${MOST} are listed` : ""}`
      : "none is called so";
    const at = shown.findIndex((one) => one.value === model.value);
    mark(typed && all.length ? 0 : at);
  }

  function mark(place) {
    list.children[active]?.classList.remove("active");
    active = Math.max(-1, Math.min(shown.length - 1, place));
    const row = list.children[active];
    if (row) {
      row.classList.add("active");
      row.scrollIntoView({ block: "nearest" });
      input.setAttribute("aria-activedescendant", row.id);
    } else input.removeAttribute("aria-activedescendant");
  }

  function open(typed = "") {
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    fill(typed);
  }
  function close() {
    list.hidden = true;
    said.textContent = "";
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    show();
  }
  function choose(one) {
    if (one.value !== model.value) model.value = one.value;
    close();
    input.select();
  }
  function show() {
    const one = chosen();
    if (list.hidden) input.value = one?.text ?? model.value;
    chip.hidden = !one?.color;
    chip.style.background = one?.color ?? "";
    label.textContent = model.label;
    input.placeholder = model.placeholder;
    input.title = model.hint;
  }
  function changed() {
    index();
    show();
    if (!list.hidden) fill(input.value);
  }

  input.addEventListener("focus", () => input.select());
  input.addEventListener("click", () => { if (list.hidden) open(); });
  input.addEventListener("input", () => open(input.value));
  input.addEventListener("blur", () => { if (!list.hidden) close(); });
  input.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
    if (event.key in steps) {
      if (list.hidden) open(); else mark(Math.max(0, active + steps[event.key]));
    } else if (event.key === "Enter" && !list.hidden) {
      if (shown[active]) choose(shown[active]);
    } else if (event.key === "Escape" && !list.hidden) {
      close();
      input.select();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  index();
  close();
  for (const name of ["value", "label", "placeholder"]) model.on(name, show);
  model.on("options", changed);
  return box;
}
