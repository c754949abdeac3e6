// Keys for judging replies. They work while nothing is being typed and no dialog is open.

const TYPED = "input, textarea, select, [contenteditable]";

function turn() {
  const replies = [...document.querySelectorAll("article.bot")];
  return document.activeElement?.closest?.("article.bot") || replies[replies.length - 1];
}

const press = (key) => {
  const button = turn()?.querySelector(`[data-key="${key}"]`);
  button?.click();
  return Boolean(button);
};

export function listenToKeys({ toggle }) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.key === "Escape") return escape(event, toggle);
    if (event.target.matches?.(TYPED) || document.querySelector("dialog[open]")) return;
    if (event.key === "/") {
      event.preventDefault();
      document.querySelector("#message")?.focus();
    } else if (event.key === "?") document.querySelector("#help")?.showModal();
    else if ("12re".includes(event.key) && press(event.key)) event.preventDefault();
  });
}

function escape(event, toggle) {
  if (document.querySelector("dialog[open]")) return; // the browser closes it
  const open = document.querySelector(".edit:not([hidden])");
  if (open) return toggle(open.id);
  const side = document.querySelector(".side.open");
  if (side) return toggle(side.id);
  document.querySelector('[aria-busy="true"] [data-key="stop"]')?.click();
  if (event.target.matches?.(TYPED)) event.target.blur();
}
