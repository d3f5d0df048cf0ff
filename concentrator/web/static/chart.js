// A cursor through the values of a chart: by pointer, by touch, and by arrow keys. What it says comes from the server, in
// the reader's language; the chart without it is the same, with a table below.
"use strict";

(() => {
  const TOP = 12;
  const STEP_LARGE = 4;
  let at = -1;
  let said = "";
  let parsed = [];

  function valuesOf(place) {
    if (place.dataset.chart !== said) {
      said = place.dataset.chart;
      parsed = JSON.parse(said);
    }
    return parsed;
  }

  function show(place, index) {
    const values = valuesOf(place);
    if (!values.length) return;
    at = Math.max(0, Math.min(values.length - 1, index));
    const [x, y, words] = values[at];
    const svg = place.querySelector("svg");
    const height = svg.viewBox.baseVal.height;
    svg.querySelector("path.cursor").setAttribute("d", `M${x} ${TOP}V${height - 26}`);
    const dot = svg.querySelector("circle.cursor");
    dot.setAttribute("r", y === null ? 0 : 4);
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y ?? 0);
    place.parentElement.querySelector("[data-cursor]").textContent = words;
  }

  function nearest(place, clientX) {
    const svg = place.querySelector("svg");
    const box = svg.getBoundingClientRect();
    const x = ((clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const values = valuesOf(place);
    let low = 0;
    let high = values.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle][0] < x) low = middle + 1;
      else high = middle;
    }
    return low > 0 && x - values[low - 1][0] < values[low][0] - x ? low - 1 : low;
  }

  // On a narrow screen the newest values are those to begin with.
  for (const place of document.querySelectorAll("[data-chart]")) place.scrollLeft = place.scrollWidth;

  for (const kind of ["pointermove", "pointerdown"]) {
    document.addEventListener(kind, (event) => {
      const place = event.target.closest?.("[data-chart]");
      if (place) show(place, nearest(place, event.clientX));
    });
  }

  document.addEventListener("keydown", (event) => {
    const place = event.target.closest?.("[data-chart]");
    if (!place || event.ctrlKey || event.altKey || event.metaKey) return;
    const last = valuesOf(place).length - 1;
    const from = at < 0 || at > last ? last + 1 : at;
    const large = event.shiftKey ? STEP_LARGE : 1;
    const to = { ArrowLeft: from - large, ArrowRight: at < 0 ? last : from + large, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(place, to);
  });
})();
