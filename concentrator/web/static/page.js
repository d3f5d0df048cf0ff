// Keeps an open page alive: takes changed parts from the event stream and puts them in place, keeps ages
// counting, and says so when nothing comes any more. Without it the page is the same, at its age.
"use strict";

(() => {
  const STALE_AFTER_MS = 12000;
  const OLD_AFTER_S = 24 * 3600;
  const body = document.body;
  let clockOffset = Date.parse(body.dataset.now) - Date.now();
  let heardAt = Date.now();
  let source = null;
  let lastTime = "";
  let loading = null;
  let reloadWanted = false;

  // Make `old` look like `fresh`, node by node, so that focus, selection and open details stay.
  function morph(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName ||
        (old.dataset && old.dataset.part !== fresh.dataset.part)) {
      old.replaceWith(fresh);
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    if (old === document.activeElement && /^(INPUT|SELECT|TEXTAREA)$/.test(old.nodeName)) return;
    for (const { name, value } of [...fresh.attributes]) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
    }
    const before = [...old.childNodes];
    const after = [...fresh.childNodes];
    after.forEach((node, at) => (at < before.length ? morph(before[at], node) : old.append(node)));
    before.slice(after.length).forEach((node) => node.remove());
  }

  function parsed(html, tag) {
    // A table row can only be parsed inside a table: a template element takes it as it is.
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content.querySelector(tag);
  }

  function takeParts(parts) {
    for (const [name, html] of Object.entries(parts)) {
      const selector = `[data-part="${CSS.escape(name)}"]`;
      const old = document.querySelector(selector);
      const fresh = parsed(html, selector);
      if (!old || !fresh) continue;
      morph(old, fresh);
      const now = document.querySelector(selector);
      if (now.nodeName === "TR") {
        now.classList.remove("changed");
        requestAnimationFrame(() => now.classList.add("changed"));
      }
    }
    tellAges();
  }

  // Load this address again and put its main part in place: rows came or went, or another one was asked for.
  async function load(address) {
    if (loading) loading.abort();
    const mine = (loading = new AbortController());
    try {
      const answer = await fetch(address, { signal: mine.signal, headers: { Accept: "text/html" } });
      // Another page answers (the session ended): all of it is another, not its main part alone.
      if (answer.redirected) return location.assign(answer.url);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (mine.signal.aborted) return;
      // Another language was chosen meanwhile: everything on the page is another.
      if (page.documentElement.lang !== document.documentElement.lang) return location.reload();
      morph(document.getElementById("main"), page.getElementById("main"));
      delete body.dataset.stream;
      Object.assign(body.dataset, page.body.dataset);
      tellAges();
      listen();
    } catch (error) {
      if (error.name !== "AbortError") tellStream();
    } finally {
      if (loading === mine) loading = null;
    }
  }

  function reloadSoon() {
    if (reloadWanted) return;
    reloadWanted = true;
    setTimeout(() => {
      reloadWanted = false;
      load(location.href);
    }, 1500);
  }

  // What is said comes from the page, in its language.
  const messages = JSON.parse(body.dataset.words);

  function say(name, values = {}) {
    return messages[name].replace(/%\((\w+)\)s/g, (_whole, key) => values[key]);
  }

  function ageWords(given) {
    if (given < -60) return say("future");
    const seconds = Math.max(0, Math.floor(given));
    if (seconds < 60) return say("seconds", { seconds });
    if (seconds < 3600) return say("minutes", { minutes: Math.floor(seconds / 60) });
    if (seconds < 86400) return say("hours", { hours: Math.floor(seconds / 3600), minutes: Math.floor((seconds % 3600) / 60) });
    return say("days", { days: Math.floor(seconds / 86400), hours: Math.floor((seconds % 86400) / 3600) });
  }

  function tellAges() {
    const now = Date.now() + clockOffset;
    for (const element of document.querySelectorAll("time[data-age]")) {
      const seconds = (now - Date.parse(element.dateTime)) / 1000;
      const words = ageWords(seconds);
      if (element.textContent !== words) element.textContent = words;
      element.classList.toggle("old", seconds > OLD_AFTER_S);
    }
  }

  function tellStream() {
    const place = document.getElementById("stream");
    const live = source && Date.now() - heardAt < STALE_AFTER_MS && source.readyState === EventSource.OPEN;
    const words = live ? say("live") : say("stale", { time: lastTime || say("first") });
    if (place.textContent !== words) place.textContent = words;
    place.dataset.kind = live ? "live" : "stale";
    body.classList.toggle("stale", !live && Date.now() - heardAt > STALE_AFTER_MS);
  }

  function heard() {
    heardAt = Date.now();
    lastTime = new Date(heardAt).toLocaleTimeString(document.documentElement.lang, { hourCycle: "h23" });
    tellStream();
  }

  function listen() {
    if (source) source.close();
    source = null;
    if (!body.dataset.stream || document.hidden) return;
    const address = new URL(body.dataset.stream, location.href);
    address.searchParams.set("baseline", body.dataset.baseline);
    source = new EventSource(address);
    source.addEventListener("open", heard);
    source.addEventListener("error", () => {
      tellStream();
      // A refusal (too many pages are open) ends an event source for good: try again by hand.
      if (source && source.readyState === EventSource.CLOSED) setTimeout(() => load(location.href), 10000);
    });
    source.addEventListener("parts", (event) => { heard(); takeParts(JSON.parse(event.data)); });
    source.addEventListener("reload", () => { heard(); reloadSoon(); });
    source.addEventListener("time", (event) => {
      clockOffset = Date.parse(JSON.parse(event.data).now) - Date.now();
      heard();
      tellAges();
    });
  }

  // Search as you type; the server searches, so that a page of two thousand meters stays small.
  let typing = 0;
  document.addEventListener("input", (event) => {
    const form = event.target.closest("[data-live-form]");
    if (!form) return;
    clearTimeout(typing);
    typing = setTimeout(() => {
      const address = new URL(form.action);
      for (const [name, value] of new FormData(form)) if (value) address.searchParams.set(name, value);
      history.replaceState(null, "", address);
      load(address);
    }, 250);
  });
  document.addEventListener("change", (event) => {
    const form = event.target.closest("[data-auto-form]");
    if (form) form.requestSubmit();
  });

  // The menu works without this; with it, it closes as people expect of one.
  function closeMenus(except) {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (menu !== except) menu.open = false;
  }
  document.addEventListener("click", (event) => closeMenus(event.target.closest("details.menu")));
  document.addEventListener("keydown", (event) => {
    const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
    if (!menu) return;
    closeMenus();
    menu.querySelector("summary").focus();
  });

  // A hidden page costs the box nothing; a page that is looked at again is first brought up to date.
  document.addEventListener("visibilitychange", () => (document.hidden ? listen() : load(location.href)));
  addEventListener("pageshow", (event) => { if (event.persisted) load(location.href); });
  setInterval(() => { tellAges(); tellStream(); }, 1000);
  document.documentElement.classList.add("script");
  listen();
})();
