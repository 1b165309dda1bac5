"use strict";
const about = e => (e.closest("details.group")?.querySelector("summary").textContent ?? "") + " " + e.textContent;
const cases = [...document.querySelectorAll("[data-v]")].map(e => [e, e.dataset.v, about(e).toLowerCase()]);
const groups = [...document.querySelectorAll("details.group, section.list")];
const text = document.getElementById("text"), verdict = document.getElementById("verdict"), count = document.getElementById("count");
let filtered = false;
function filter() {
  const wanted = text.value.trim().toLowerCase().split(/\s+/), only = verdict.value;
  const active = only || text.value.trim();
  let shown = 0;
  for (const [element, is, words] of cases) {
    const keep = (!only || is === only) && wanted.every(word => words.includes(word));
    if (element.hidden === keep) element.hidden = !keep;
    shown += keep;
  }
  for (const group of groups) {
    const some = group.querySelector("[data-v]:not([hidden])") !== null;
    group.hidden = !some;
    if (group.tagName === "DETAILS" && (active || filtered)) group.open = Boolean(active) && some;
  }
  filtered = Boolean(active);
  count.textContent = active ? `${shown} of ${cases.length} shown` : `${cases.length} in all`;
}
text.addEventListener("input", filter);
verdict.addEventListener("change", filter);
async function copy(button) {
  const pre = button.nextElementSibling;
  try { await navigator.clipboard.writeText(pre.textContent); }
  catch {  // a page from a file may not use the clipboard everywhere
    const range = document.createRange();
    range.selectNodeContents(pre);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    document.execCommand("copy");
  }
  button.textContent = "copied";
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}
document.addEventListener("click", event => { if (event.target.matches("button.copy")) copy(event.target); });
document.addEventListener("keydown", event => {
  if (event.key === "/" && document.activeElement !== text) { event.preventDefault(); text.focus(); }
  if (event.key === "Escape" && document.activeElement === text) { text.value = ""; filter(); }
});
addEventListener("beforeprint", () => groups.forEach(group => { group.open = true; }));
function open() {  // a permalink may point into what is folded
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let up = target; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", open);
filter();
open();
