// What the console's pages do beside htmx: theme, drafts, notes, dialogs, and finding the server again.
import { listenToKeys } from "./keys.js";

const $ = (selector, within = document) => within.querySelector(selector);
const message = () => $("#message");
const draftKey = () => `draft:${location.pathname}`;

// -- notes: a refusal is one sentence from the server

function note(text) {
  const toast = document.createElement("div");
  toast.className = "toast";
  toast.textContent = text;
  $("#notes").append(toast);
  setTimeout(() => toast.remove(), 8000);
}

const announce = (text) => { $("#announce").textContent = text; };

document.addEventListener("htmx:responseError", ({ detail }) => {
  const { status, responseText, responseURL } = detail.xhr;
  if (status === 401) location.assign("/login");
  else if (status !== 502 || responseURL) note(responseText || "The server could not do that.");
});
document.addEventListener("htmx:sendError", lost);
document.addEventListener("htmx:timeout", () => note("The server took too long to answer; try again."));
document.addEventListener("htmx:sseError", () => { fetch("/alive").catch(lost); });

// -- the server gone, and back

let looking = false;
function lost() {
  if (looking) return;
  looking = true;
  $("#offline").hidden = false;
  keepDraft();
  const timer = setInterval(async () => {
    try {
      if ((await fetch("/alive", { cache: "no-store" })).status !== 204) return;
    } catch { return; }
    clearInterval(timer);
    location.reload();
  }, 1500);
}

// -- the message box: grows, counts, keeps what was typed

function keepDraft() {
  const box = message();
  if (!box) return;
  if (box.value) sessionStorage.setItem(draftKey(), box.value);
  else sessionStorage.removeItem(draftKey());
}

function fit(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
  const limit = Number(box.dataset.limit);
  const length = [...box.value.trim()].length;
  const count = $("#count");
  count.textContent = length > 0.8 * limit ? `${length} of ${limit} characters` : "";
  count.classList.toggle("over", length > limit);
}

document.addEventListener("input", ({ target }) => {
  if (target.id !== "message") return;
  fit(target);
  keepDraft();
});

document.addEventListener("keydown", (event) => {
  const { target } = event;
  if (target.id !== "message" || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  target.form.requestSubmit();
});

document.addEventListener("htmx:beforeRequest", (event) => {
  const form = event.detail.elt;
  if (!form.matches("[data-composer]")) return;
  const box = message();
  const said = box.value.trim();
  const limit = Number(box.dataset.limit);
  const length = [...said].length;
  let refusal = "";
  if (!said) refusal = "Write something first.";
  else if (length > limit) refusal = `That has ${length} characters and ${limit} are allowed; send a shorter one.`;
  else if ($("[aria-busy=true]")) refusal = "A reply is being written. Wait for it, or press Esc to stop it.";
  if (refusal) {
    event.preventDefault();
    note(refusal);
    box.focus();
  }
});

document.addEventListener("htmx:afterRequest", ({ detail }) => {
  const { elt, successful } = detail;
  if (!successful) return;
  if (elt.matches("[data-composer]")) {
    const box = message();
    box.value = "";
    sessionStorage.removeItem(draftKey());
    fit(box);
    $("#empty")?.remove();
    toEnd();
  }
  if (elt.dataset.closes) $(`#${elt.dataset.closes}`)?.close();
});

// -- following a reply as it is written

const scroller = () => $("#scroll");
function toEnd() {
  const area = scroller();
  if (area) area.scrollTop = area.scrollHeight;
}
const nearEnd = () => {
  const area = scroller();
  return area && area.scrollHeight - area.scrollTop - area.clientHeight < 160;
};
let following = true;
document.addEventListener("htmx:sseBeforeMessage", () => { following = nearEnd(); });
document.addEventListener("htmx:sseMessage", ({ detail }) => {
  if (following) toEnd();
  if (detail.type === "end") announce("The reply is finished.");
});

let focused = null;
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const turn = detail.target?.closest?.("article.turn");
  focused = turn && turn.contains(document.activeElement) ? document.activeElement.dataset.key || "" : null;
});
document.addEventListener("htmx:afterSettle", ({ detail }) => {
  if (focused === null) return;
  const turn = detail.elt.closest?.("article.turn");
  (turn && ((focused && $(`[data-key="${focused}"]`, turn)) || turn))?.focus({ preventScroll: true });
  focused = null;
});

// -- small controls, by attribute

const THEMES = ["auto", "light", "dark"];
document.addEventListener("click", ({ target }) => {
  const on = (attribute) => target.closest(`[data-${attribute}]`);
  let found;
  if ((found = on("open"))) $(`#${found.dataset.open}`).showModal();
  else if (on("close")) target.closest("dialog").close();
  else if ((found = on("toggle"))) toggle(found.dataset.toggle);
  else if ((found = on("idea"))) {
    message().value = found.dataset.idea;
    fit(message());
    message().focus();
  } else if (on("theme-switch")) {
    const root = document.documentElement;
    const next = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
    root.dataset.theme = next;
    document.cookie = `thumbtune_theme=${next}; path=/; max-age=31536000; samesite=strict`;
    announce(`Colours: ${next}`);
  } else if (target.matches("dialog")) target.close();
});

function toggle(id) {
  const part = document.getElementById(id);
  if (part.matches(".side")) {
    part.classList.toggle("open");
    return;
  }
  part.hidden = !part.hidden;
  document.querySelectorAll(`[aria-controls="${id}"]`).forEach((button) => button.setAttribute("aria-expanded", String(!part.hidden)));
  if (part.hidden) part.closest("article")?.focus({ preventScroll: true });
  else {
    part.scrollIntoView({ block: "nearest" });
    $("textarea", part)?.focus();
  }
}

// -- start

listenToKeys({ toggle });
if (message()) {
  const kept = sessionStorage.getItem(draftKey());
  if (kept) message().value = kept;
  fit(message());
  toEnd();
  if (matchMedia("(hover: hover)").matches) message().focus();
}
