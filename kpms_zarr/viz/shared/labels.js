// Names for the controls of Bokeh that have none for those who do not see them: the handles of
// sliders, boxes to tick, tools of plots. They come and go, so that they are looked for again and
// again.
(() => {
  function* walk(root) {
    for (const node of root.querySelectorAll("*")) {
      yield node;
      if (node.shadowRoot) yield* walk(node.shadowRoot);
    }
  }
  // The words that stand beside a control in its widget.
  function beside(node) {
    const words = node.getRootNode().querySelector("label, .bk-slider-title, .bk-label");
    return (words?.textContent ?? "").replace(/:.*$/s, "").trim();
  }
  function set(node, name, value) {
    if (value && node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  function name() {
    for (const node of walk(document)) {
      if (node.matches(".noUi-handle, input[type=checkbox]")) {
        set(node, "aria-label", beside(node));
      } else if (node.matches(".bk-spin-btn")) {
        // For the mouse; the arrow keys do the same in the field itself.
        node.tabIndex = -1;
        set(node, "aria-hidden", "true");
      } else if (node.matches(".bk-OnOffButton, .bk-ClickButton, .bk-tool-overflow")) {
        set(node, "role", "button");
        set(node, "aria-label", `Plot: ${node.title || "more tools"}`);
        if (node.matches(".bk-OnOffButton")) {
          set(node, "aria-pressed", String(node.classList.contains("bk-active")));
        }
      }
    }
  }
  setInterval(name, 1000);
})();
