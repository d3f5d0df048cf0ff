// The list of the traffic: takes new frames from a stream of its own, newest first, while it is not paused.
"use strict";

(() => {
  const MOST_ROWS = 300;
  const list = document.getElementById("frames");
  const state = document.getElementById("traffic-state");
  const button = document.getElementById("pause");
  let source = null;
  let after = Number(list.dataset.after);
  let missed = 0;
  let paused = false;

  function tell(kind) {
    const words = state.dataset[kind] + (missed ? `, ${missed} ${state.dataset.missed}` : "");
    if (state.textContent !== words) state.textContent = words;
    state.dataset.kind = kind;
  }

  function take(batch) {
    missed += batch.missed;
    after = batch.newest;
    const template = document.createElement("template");
    template.innerHTML = batch.html;
    for (const row of [...template.content.children]) {
      if (!list.querySelector(`[data-frame="${row.dataset.frame}"]`)) list.prepend(row);
    }
    while (list.children.length > MOST_ROWS) list.lastElementChild.remove();
    tell("live");
  }

  function listen() {
    if (source) source.close();
    source = null;
    if (paused || document.hidden) return;
    const address = new URL(list.dataset.stream, location.href);
    address.searchParams.set("after", after);
    source = new EventSource(address);
    source.addEventListener("open", () => tell("live"));
    source.addEventListener("frames", (event) => take(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      // It is opened anew by hand, so that it goes on after the last frame that came.
      tell("lost");
      source.close();
      setTimeout(listen, 3000);
    });
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? button.dataset.resume : button.dataset.pause;
    button.setAttribute("aria-pressed", String(paused));
    if (paused) tell("paused");
    listen();
  });
  document.addEventListener("visibilitychange", listen);
  listen();
})();
