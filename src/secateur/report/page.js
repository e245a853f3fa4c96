"use strict";
// The page reads well without script: every number is in its tables. This adds sorting, searching, copying and figures as
// files; treemap.js draws maps, explore.js moves the budget, examples.js shows where it hurt. Names come in as text and
// stay text: no name is ever read as markup.
document.documentElement.classList.add("js");
const $ = (id) => document.getElementById(id);
const make = (tag, more = {}, ...inside) => { const one = Object.assign(document.createElement(tag), more); one.append(...inside); return one };
const DATA = JSON.parse($("data").textContent || "{}");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// how numbers are said, as in words.py
const nats = (x) => x.toFixed(Math.abs(x) >= 0.01 ? 4 : 5);
const short = (x) => x === 0 ? "0" : Math.abs(x) >= 0.001 ? x.toPrecision(3) : x.toExponential(1);
const size = (x) => { for (const [unit, by] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (x >= by) return `${+(x / by).toPrecision(3)} ${unit}`; return `${Math.round(x)} bytes` };
const many = (x) => Math.round(x).toLocaleString("en");
function amount(resource, x) {
  if (resource === "bits_per_weight") return `${x.toFixed(3)} bits per weight`;
  if (resource === "seconds") return `${(1e3 * x).toPrecision(3)} ms`;
  if (resource === "flops") { const [by, one] = [["G", 1e9], ["M", 1e6], ["k", 1e3], ["", 1]].find(([, least]) => x >= least || least === 1); return `${+(x / one).toPrecision(3)} ${by}FLOPs` }
  return size(x) + (resource === "kv" ? " of cache per token" : "");
}

// ------------------------------------------------------------------------------------------------ sorting and searching
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const value = (row, at) => row.cells[at].dataset.v ?? row.cells[at].textContent;
  heads.forEach((head, at) => {
    const button = make("button", { type: "button", textContent: head.textContent, title: "sort by this column" });
    head.replaceChildren(button);
    button.onclick = () => {
      const words = head.classList.contains("w");
      const up = head.ariaSort ? head.ariaSort !== "ascending" : words;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const by = words ? (a, b) => value(a, at).localeCompare(value(b, at), undefined, { numeric: true })
        : (a, b) => (value(a, at) || -1) - (value(b, at) || -1);
      body.append(...[...body.rows].sort((a, b) => up ? by(a, b) : by(b, a)));
    };
  });
}
if ($("find")) {
  const rows = [...$("units").tBodies[0].rows];
  $("find").oninput = () => {
    const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    $("found").textContent = words.length ? `${many(shown)} of ${many(rows.length)}` : "";
  };
}

// ------------------------------------------------------------------------------------------------ copying and saving
for (const box of document.querySelectorAll(".copy")) {
  const button = make("button", { type: "button", className: "button", textContent: "copy" });
  button.onclick = async () => {
    try { await navigator.clipboard.writeText(box.querySelector("code").textContent); button.textContent = "copied" }
    catch { getSelection().selectAllChildren(box.querySelector("code")); button.textContent = "selected" }
    setTimeout(() => { button.textContent = "copy" }, 1500);
  };
  box.append(button);
}
const PAINT = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "opacity", "font-size", "font-weight", "font-family", "text-anchor"];
function standalone(svg) { // a picture that looks the same without this page's style
  const copy = svg.cloneNode(true), from = [svg, ...svg.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
  from.forEach((one, at) => { const seen = getComputedStyle(one); for (const name of PAINT) if (seen[name]) to[at].style.setProperty(name, seen.getPropertyValue(name)) });
  const [, , wide, high] = svg.getAttribute("viewBox").split(" ").map(Number);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", wide); copy.setAttribute("height", high);
  const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of Object.entries({ width: wide, height: high, fill: css("--paper") })) ground.setAttribute(name, value);
  copy.prepend(ground);
  return [new XMLSerializer().serializeToString(copy), wide, high];
}
function give(blob, name) { const link = make("a", { href: URL.createObjectURL(blob), download: name }); link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 1000) }
function save(figure, picture) {
  const name = figure.dataset.name, box = make("div", { className: "save" });
  const svg = make("button", { type: "button", textContent: "SVG", ariaLabel: `save ${name} as SVG` });
  svg.onclick = () => give(new Blob([standalone(picture())[0]], { type: "image/svg+xml" }), `${name}.svg`);
  const png = make("button", { type: "button", textContent: "PNG", ariaLabel: `save ${name} as PNG` });
  png.onclick = () => {
    const [text, wide, high] = standalone(picture()), image = new Image(), at = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    image.onload = () => {
      const canvas = make("canvas", { width: 3 * wide, height: 3 * high });
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => { give(blob, `${name}.png`); URL.revokeObjectURL(at) }, "image/png");
    };
    image.src = at;
  };
  box.append(svg, png); figure.prepend(box);
}
for (const figure of document.querySelectorAll("figure[data-name]")) {
  const svg = figure.querySelector("svg[role=img]");
  if (svg) save(figure, () => svg);
}
