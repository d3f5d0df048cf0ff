// Moves and zooms the network's picture: buttons, wheel with Ctrl (or once it has the focus), two fingers, keys. What is
// shown is a window of the drawing, kept when the page brings it up to date.
"use strict";

(() => {
  const LARGEST = 12;
  const STEP = 1.4;
  const SHARE = 0.15;
  // The window as shares of the drawing: its size, and where it begins.
  let size = 1;
  let left = 0;
  let top = 0;
  const fingers = new Map();
  let moved = false;

  const region = () => document.querySelector("[data-pan]");

  function whole(svg) {
    const height = Number((svg.dataset.whole || svg.getAttribute("viewBox")).split(" ")[3]);
    return { width: 1000, height };
  }

  function apply() {
    const place = region();
    if (!place) return;
    const svg = place.querySelector("svg");
    const given = svg.getAttribute("viewBox");
    if (given !== svg.dataset.shown) svg.dataset.whole = given;
    const { width, height } = whole(svg);
    left = Math.max(0, Math.min(1 - size, left));
    top = Math.max(0, Math.min(1 - size, top));
    const shown = size === 1 ? svg.dataset.whole : [left * width, top * height, size * width, size * height].map((one) => one.toFixed(1)).join(" ");
    svg.dataset.shown = shown;
    if (given !== shown) svg.setAttribute("viewBox", shown);
    place.classList.toggle("zoomed", size < 1);
  }

  // Zoom so that what is at a place of the window (shares of it) stays there.
  function zoom(factor, x = 0.5, y = 0.5) {
    const next = Math.max(1 / LARGEST, Math.min(1, size / factor));
    left += (size - next) * x;
    top += (size - next) * y;
    size = next;
    apply();
  }

  function pan(x, y) {
    left += x * size;
    top += y * size;
    apply();
  }

  function share(place, event) {
    const box = place.querySelector("svg").getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-zoom]");
    if (button) {
      if (button.dataset.zoom === "all") {
        size = 1;
        left = top = 0;
        apply();
      } else zoom(button.dataset.zoom === "in" ? STEP : 1 / STEP);
    } else if (moved && event.target.closest?.("[data-pan]")) {
      // The end of a drag is no click on a node.
      event.preventDefault();
    }
    moved = false;
  }, true);

  document.addEventListener("wheel", (event) => {
    const place = event.target.closest?.("[data-pan]");
    if (!place || !(event.ctrlKey || place.contains(document.activeElement))) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...share(place, event));
  }, { passive: false });

  document.addEventListener("pointerdown", (event) => {
    const place = event.target.closest?.("[data-pan]");
    if (!place) return;
    moved = false;
    fingers.set(event.pointerId, event);
  });
  document.addEventListener("dragstart", (event) => {
    if (event.target.closest?.("[data-pan]")) event.preventDefault();
  });
  document.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    const place = region();
    if (!before || !place) return;
    const box = place.querySelector("svg").getBoundingClientRect();
    if (fingers.size === 1 && size < 1) {
      if (Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY) < 4 && !moved) return;
      moved = true;
      pan((before.clientX - event.clientX) / box.width, (before.clientY - event.clientY) / box.height);
    } else if (fingers.size === 2) {
      const other = [...fingers.values()].find((one) => one.pointerId !== event.pointerId);
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      moved = true;
      zoom(apart(event) / Math.max(1, apart(before)), ...share(place, { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 }));
    }
    fingers.set(event.pointerId, event);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    document.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  }

  document.addEventListener("keydown", (event) => {
    const place = event.target.closest?.("[data-pan]");
    if (!place || event.ctrlKey || event.altKey || event.metaKey) return;
    const way = { ArrowLeft: [-SHARE, 0], ArrowRight: [SHARE, 0], ArrowUp: [0, -SHARE], ArrowDown: [0, SHARE] }[event.key];
    if (way && size < 1) pan(...way);
    else if (event.key === "+" || event.key === "=") zoom(STEP);
    else if (event.key === "-") zoom(1 / STEP);
    else if (event.key === "0") zoom(1 / LARGEST);
    else return;
    event.preventDefault();
  });

  // The page puts a fresh drawing in place: the window stays.
  new MutationObserver(apply).observe(document.getElementById("main"), { subtree: true, childList: true, attributes: true, attributeFilter: ["viewBox"] });
})();
