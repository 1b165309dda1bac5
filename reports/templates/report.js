"use strict";
const cases = [...document.querySelectorAll("[data-v]")];
const groups = [...document.querySelectorAll("details.group"), ...document.querySelectorAll("section.list")];
const text = document.getElementById("text"), verdict = document.getElementById("verdict"), count = document.getElementById("count");
const about = e => ((e.closest("details.group")?.querySelector("summary").textContent ?? "") + " " + e.textContent).toLowerCase();
let words = null, filtered = false;
function filter() {
  words ??= cases.map(about);
  const wanted = text.value.trim().toLowerCase().split(/\s+/), only = verdict.value;
  const active = only || text.value.trim();
  let shown = 0;
  cases.forEach((element, number) => {
    const keep = (!only || element.dataset.v === only) && wanted.every(word => words[number].includes(word));
    if (element.hidden === keep) element.hidden = !keep;
    shown += keep;
  });
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
(self.requestIdleCallback ?? setTimeout)(() => { words ??= cases.map(about); });
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
// What thousands of cases have, and few readers look at, is made when it comes into sight: the last runs, and links.
const spoken = { p: "passed", f: "failed", w: "waived", s: "skipped", b: "not verified", "-": "not asked" };
function draw(element) {
  const letters = [...element.dataset.h.replace(/(\d+)(.)/g, (_, times, letter) => letter.repeat(times))], told = {};
  const place = element.querySelector(".tag, small");
  if (place.querySelector("svg") || !letters.every(letter => letter in spoken)) return;
  letters.forEach(letter => { told[spoken[letter]] = (told[spoken[letter]] ?? 0) + 1; });
  const runs = Object.entries(told).map(([word, times]) => `${times} ${word}`).join(", ");
  const label = `last ${letters.length} runs: ${runs}; this one: ${spoken[letters.at(-1)]}`;
  const cells = letters.map((letter, n) => `<rect class="${letter}" x="${n * 5}" width="4" height="12"/>`).join("");
  place.insertAdjacentHTML("beforeend", ` <svg class="strip" role="img" aria-label="${label}" width="${letters.length * 5}" height="12">` +
    `<title>${label}</title>${cells}</svg>`);
}
const strips = document.querySelectorAll("[data-h]");
const sight = new IntersectionObserver(seen => seen.forEach(entry => {
  if (entry.isIntersecting) { draw(entry.target); sight.unobserve(entry.target); }
}), { rootMargin: "300px" });
strips.forEach(strip => sight.observe(strip));
const encoded = id => "#" + id.split("/").map(encodeURIComponent).join("/");
function linked(element) {  // a failure's title is its link
  const place = element.matches("details") ? element.firstElementChild : element;
  if (element.matches("article") || place.querySelector(":scope > .link")) return;
  const link = document.createElement("a");
  link.className = "link";
  link.href = encoded(element.id);
  link.textContent = "#";
  link.title = "link to this case";
  place.append(link);
}
const reached = event => { const element = event.target.closest?.("[data-v]"); if (element) linked(element); };
document.addEventListener("mouseover", reached);
document.addEventListener("focusin", reached);
document.addEventListener("toggle", event => {
  if (event.target.open && event.target.matches("details.group")) event.target.querySelectorAll("[data-v]").forEach(linked);
  else reached(event);
}, true);
let closed = [];
addEventListener("beforeprint", () => {  // paper cannot be opened
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach(details => { details.open = true; });
  strips.forEach(draw);
});
addEventListener("afterprint", () => closed.splice(0).forEach(details => { details.open = false; }));
function wanted() {  // the case that the address names: its id, or that of its check
  let id = location.hash.slice(1);
  try { id = decodeURIComponent(id); } catch { /* as it is typed */ }
  return id && (document.getElementById(id) ?? cases.find(element => element.id.split("/")[1] === id));
}
function open() {  // a permalink may point into what is folded, or filtered out
  const target = wanted();
  if (!target) return;
  if (target.hidden) { text.value = verdict.value = ""; filter(); }
  for (let up = target; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", open);
count.textContent = `${cases.length} in all`;
open();
