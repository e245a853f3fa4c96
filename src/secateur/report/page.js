"use strict";
// The page reads well without this: every number is in its tables. This adds the budget's slider, the map, sorting,
// searching, copying, and figures as files. Names come in as text and stay text: no name is ever read as markup.
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

// ------------------------------------------------------------------------------------------------ the budget
if (DATA.plans) explore();
function explore() {
  const { units, edits, plans } = DATA, home = DATA.ours ?? Math.floor(plans.length / 2);
  const slider = $("budget"), state = { at: home, area: "after", colour: "edit", path: [] };
  const whole = plans.map((plan) => plan.choice.reduce((sum, e, u) => sum + (DATA.damage[u][e] ?? 0), 0));
  const scaled = (u, e) => (DATA.damage[u][e] ?? 0) * (whole[state.at] > 0 ? plans[state.at].damage / whole[state.at] : 1);
  const chosen = (u) => plans[state.at].choice[u];
  const bits = (u, e = chosen(u)) => 8 * DATA.payload[u][e] / units[u][3];
  const kept = (u) => edits[chosen(u)].startsWith("keep");
  const before = (u) => DATA.before.length ? DATA.before[u][0] ?? 2 * units[u][3] : 2 * units[u][3];
  const area = (u) => state.area === "before" ? before(u) : DATA.bytes[u][chosen(u)];
  let leanest = Infinity, most = 0; // bits of what is cut, in any of the plans: one scale of colours for all of them
  for (const plan of plans) plan.choice.forEach((e, u) => { if (!edits[e].startsWith("keep")) { const b = bits(u, e); leanest = Math.min(leanest, b); most = Math.max(most, b) } });

  slider.max = plans.length - 1;
  if (DATA.ours !== null && plans.length > 1) {
    const mark = make("i"); // where this run's own plan is
    mark.style.left = `calc(8px + (100% - 16px) * ${DATA.ours / (plans.length - 1)})`;
    slider.after(mark);
  }
  slider.oninput = () => { state.at = +slider.value; show() };
  $("back").onclick = () => { slider.value = state.at = home; show() };

  const dots = [...document.querySelectorAll("#frontier [data-at]")].filter((dot) => dot.dataset.at >= 0), svg = document.querySelector("#frontier svg");
  const here = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  here.setAttribute("class", "here"); here.setAttribute("r", 8); svg?.append(here);
  if (svg) svg.onclick = (event) => { // the nearest point of the curve
    const x = (event.clientX - svg.getBoundingClientRect().left) / svg.getBoundingClientRect().width * svg.viewBox.baseVal.width;
    const near = dots.reduce((best, dot) => Math.abs(dot.getAttribute("cx") - x) < Math.abs(best.getAttribute("cx") - x) ? dot : best);
    slider.value = state.at = +near.dataset.at; show();
  };

  function show() {
    const plan = plans[state.at], mine = state.at === DATA.ours;
    const told = `${plan.bits.toFixed(3)} bits per weight`;
    $("said").replaceChildren(make("b", { textContent: told }), make("span", { textContent: plan.bytes == null ? "" : size(plan.bytes) }),
      make("span", { textContent: `${nats(plan.damage)} ± ${nats(plan.error)} nats per ${DATA.each}` }), make("span", { className: "pin", textContent: mine ? "this plan" : "" }));
    slider.setAttribute("aria-valuetext", `${told}, ${nats(plan.damage)} nats per ${DATA.each}${mine ? ", this plan" : ""}`);
    $("back").disabled = state.at === home;
    const dot = dots.find((one) => +one.dataset.at === state.at);
    if (dot) { here.setAttribute("cx", dot.getAttribute("cx")); here.setAttribute("cy", dot.getAttribute("cy")) }
    const gap = plan.floor > 0 ? plan.damage / plan.floor - 1 : 0;
    facts({ "bits per weight": plan.bits.toFixed(3), "bytes": plan.bytes == null ? "" : many(plan.bytes), "damage expected": `${nats(plan.damage)} ± ${nats(plan.error)}`,
      "proven floor": `${nats(plan.floor)}${gap < 5e-5 ? ", reached" : `, ${(100 * gap).toFixed(2)}% below`}` });
    mixture(); columns(); table(); map();
    $("plan").textContent = `secateur plan ${$("plan").dataset.menu} --budget "${(Math.ceil(1e4 * plan.bits - 1e-6) / 1e4).toFixed(4)} bits/weight" -o plan.yaml`;
  }
  function facts(pairs) { $("facts").replaceChildren(...Object.entries(pairs).filter(([, value]) => value).flatMap(([key, value]) => [make("dt", { textContent: key }), make("dd", { textContent: value })])) }
  function mixture() { // what the plan is made of, by the weights
    const sums = new Map(); let total = 0;
    units.forEach((unit, u) => { sums.set(chosen(u), (sums.get(chosen(u)) ?? 0) + unit[3]); total += unit[3] });
    const sorted = [...sums].sort((a, b) => b[1] - a[1]), top = sorted[0][1];
    const rows = sorted.slice(0, 8).map(([e, n]) => { const stripe = make("i"); stripe.style.width = `${100 * n / top}%`; return make("li", {}, make("b", { textContent: edits[e], title: edits[e] }), stripe, make("span", { textContent: `${(100 * n / total).toFixed(1)}%` })) });
    if (sorted.length > 8) rows.push(make("li", {}, make("b", { textContent: `${sorted.length - 8} more` }), make("i"), make("span", { textContent: `${(100 * sorted.slice(8).reduce((sum, [, n]) => sum + n, 0) / total).toFixed(1)}%` })));
    $("mix").replaceChildren(...rows);
  }
  function columns() { // the picture through the depth
    const picture = document.querySelector("svg.depth");
    if (!picture) return;
    const { ground, top, most: limit } = picture.dataset;
    for (const rect of picture.querySelectorAll("rect[data-u]")) {
      const u = +rect.dataset.u, share = kept(u) ? 1 : Math.min(bits(u) / limit, 1), tall = share * (ground - top);
      rect.classList.toggle("kept", kept(u));
      rect.setAttribute("height", tall.toFixed(1)); rect.setAttribute("y", (ground - tall).toFixed(1));
      rect.firstChild.textContent = `${units[u][0]}: ${edits[chosen(u)]}, ${bits(u).toPrecision(3)} bits per weight`;
    }
    const line = picture.querySelector(".mean"), y = (ground - Math.min(plans[state.at].bits / limit, 1) * (ground - top)).toFixed(1);
    if (line) { line.setAttribute("y1", y); line.setAttribute("y2", y); const said = picture.querySelector(".said"); said.setAttribute("y", +y + 4); said.textContent = plans[state.at].bits.toPrecision(3) }
  }
  function table() {
    for (const row of $("units").tBodies[0].rows) {
      const u = +row.dataset.u, e = chosen(u), put = (name, value, text) => { const cell = row.querySelector(`[data-c=${name}]`); cell.dataset.v = value; cell.textContent = text };
      put("bits", bits(u), bits(u).toFixed(3)); put("bytes", DATA.bytes[u][e], many(DATA.bytes[u][e])); put("damage", scaled(u, e), scaled(u, e).toFixed(6));
      row.querySelector("code").textContent = edits[e];
    }
    $("whose").textContent = state.at === DATA.ours ? "" : ` Shown is the plan at ${plans[state.at].bits.toFixed(3)} bits per weight, not the one carried out.`;
  }

  // ---------------------------------------------------------------------------------------------- the map
  const box = $("map"), tree = new Map(); // block -> units; what lies outside the blocks stands alone
  const depth = (unit) => unit[1] === "embedding" ? -1 : unit[2] ?? Infinity;
  units.map((unit, u) => [unit, u]).sort(([a], [b]) => Math.sign(depth(a) - depth(b)) || 0).forEach(([unit, u]) => {
    const key = unit[2] === null ? unit[0] : `block ${unit[2]}`;
    tree.has(key) ? tree.get(key).push(u) : tree.set(key, [u]);
  });
  const tiles = new Map(); // the buttons there are, so that they move instead of being made anew
  for (const [name, values] of [["area", ["after", "before"]], ["colour", ["edit", "damage"]]])
    for (const value of values) $(`${name}-${value}`).onclick = () => { state[name] = value; map() };

  const scales = {}; // the style's scales of colours, read once a drawing: asking the style is slow
  const read = () => { for (const name of ["--bits", "--hurt"]) scales[name] = css(name).split(" ") };
  function blend(name, share) { // a colour on a scale, from 0 to 1
    const stops = scales[name], at = Math.min(Math.max(share, 0), 1) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
    const [a, b] = [stops[low], stops[low + 1]].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
    return a.map((x, i) => Math.round(x + (b[i] - x) * (at - low)));
  }
  const readable = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b) > 140 ? "#111" : "#fff";
  function paint(u, top, least) { // by the bits it got, or by the damage expected of it, on a logarithmic scale
    if (state.colour === "edit") return blend("--bits", kept(u) ? 1 : (bits(u) - leanest) / (most - leanest || 1));
    const d = scaled(u, chosen(u));
    return blend("--hurt", d <= 0 ? 0 : Math.log(d / least) / (Math.log(top / least) || 1));
  }
  function lay(items, x, y, wide, high, ordered) { // areas as square as they can be; items are [key, area]
    // `ordered`: in rows, as one reads, so that blocks stand in the order of the network; else the largest comes first
    const places = [], total = items.reduce((sum, [, a]) => sum + a, 0), rest = items.filter(([, a]) => a > 0).map(([key, a]) => [key, a / total * wide * high]);
    if (!ordered) rest.sort((a, b) => b[1] - a[1]);
    while (rest.length) {
      const across = !ordered && wide >= high, side = across ? high : wide, row = [];
      let sum = 0, large = 0, small = Infinity, worst = Infinity;
      while (rest.length) {
        const a = rest[0][1], next = sum + a, most = Math.max(large, a), least = Math.min(small, a);
        const now = Math.max(side * side * most / (next * next), next * next / (side * side * least));
        if (row.length && now > worst) break;
        [worst, sum, large, small] = [now, next, most, least];
        row.push(rest.shift());
      }
      const thick = sum / side; let at = 0;
      for (const [key, a] of row) {
        const long = a / thick;
        places.push(across ? [key, x, y + at, thick, long] : [key, x + at, y, long, thick]);
        at += long;
      }
      if (across) { x += thick; wide -= thick } else { y += thick; high -= thick }
    }
    return places;
  }
  const leafName = (name) => name.replace(/\.\*$/, "").split(".").slice(-1)[0];
  function layout() { // [key, x, y, wide, high, what] of every tile at this zoom
    const wide = box.clientWidth, high = box.clientHeight, sum = (us) => us.reduce((s, u) => s + area(u), 0);
    const [group, unit] = state.path, out = [];
    if (unit !== undefined) {
      const parts = units[unit][4];
      return lay(parts.map(([, r, c], at) => [at, r * c]), 0, 0, wide, high).map(([at, ...place]) => [`m${unit}:${at}`, ...place, { u: unit, matrix: parts[at] }]);
    }
    const groups = group === undefined ? [...tree] : [[group, tree.get(group)]];
    for (const [key, x, y, w, h] of lay(groups.map(([key, us]) => [key, sum(us)]), 0, 0, wide, high, true)) {
      const us = tree.get(key), alone = us.length === 1, head = !alone && group === undefined && h > 40 && w > 24 ? 18 : 0;
      if (!alone && group === undefined) out.push([`g${key}`, x, y, w, h, { group: key, us }]);
      if (w * h < 12) continue; // too small to be told apart; the group stands for it
      const edge = head ? 2 : 0;
      for (const [u, ...place] of lay(us.map((u) => [u, area(u)]), x + edge, y + head, w - 2 * edge, h - head - edge)) out.push([`u${u}`, ...place, { u, group: key, alone }]);
    }
    return out;
  }
  function map() {
    read();
    for (const [name, values] of [["area", ["after", "before"]], ["colour", ["edit", "damage"]]]) for (const value of values) $(`${name}-${value}`).setAttribute("aria-pressed", state[name] === value);
    const damages = units.map((_, u) => scaled(u, chosen(u))).filter((d) => d > 0), top = Math.max(...damages, 1e-12), least = Math.max(Math.min(...damages), top / 1e4);
    const places = layout(), there = new Set(places.map(([key]) => key));
    for (const [key, tile] of tiles) if (!there.has(key)) { tile.remove(); tiles.delete(key) }
    for (const [key, x, y, w, h, what] of places) {
      let tile = tiles.get(key);
      if (!tile) { tile = make("button", { type: "button", tabIndex: -1 }); tiles.set(key, tile); box.append(tile) }
      const [across, down] = [(v) => `${100 * v / box.clientWidth}%`, (v) => `${100 * v / box.clientHeight}%`]; // so that paper is as good as a window
      Object.assign(tile.style, { left: across(x), top: down(y), width: across(w), height: down(h) });
      tile.className = what.group !== undefined && what.us ? "group" : "leaf";
      if (what.us) dressGroup(tile, what, w, h); else dressLeaf(tile, what, w, h, paint(what.u, top, least));
      tile.onclick = () => open(what); tile.onpointerenter = tile.onfocus = () => tell(what);
    }
    const first = [...tiles.values()][0];
    if (first && !box.querySelector("[tabindex='0']")) first.tabIndex = 0;
    box.classList.toggle("leaf", state.path.length === 2);
    scale(top, least); crumbs(); menu();
  }
  function dressGroup(tile, { group, us }, w, h) {
    tile.style.backgroundColor = ""; tile.style.color = "";
    tile.replaceChildren(make("span", { textContent: w > 76 ? group : w > 24 ? group.replace("block ", "") : "" }));
    tile.setAttribute("aria-label", `${group}, ${us.length} units, ${size(us.reduce((s, u) => s + DATA.bytes[u][chosen(u)], 0))}: zoom in`);
  }
  function dressLeaf(tile, { u, matrix }, w, h, rgb) {
    tile.style.backgroundColor = `rgb(${rgb})`; tile.style.color = readable(rgb);
    tile.classList.toggle("kept", kept(u));
    const name = matrix ? leafName(matrix[0].replace(/\.weight$/, "")) : leafName(units[u][0]), said = matrix ? `${many(matrix[1])} × ${many(matrix[2])}` : kept(u) ? "kept" : `${bits(u).toPrecision(3)} bits`;
    tile.replaceChildren(...(w > 46 && h > 17 ? [make("span", { textContent: name })] : []), ...(w > 50 && h > 34 ? [make("small", { textContent: said })] : []),
      ...(w > 120 && h > 62 ? [make("small", { textContent: matrix ? edits[chosen(u)] : `${size(DATA.bytes[u][chosen(u)])}` })] : []));
    tile.setAttribute("aria-label", line(u) + (matrix ? `, matrix ${matrix[0]}` : ""));
  }
  const line = (u) => `${units[u][0]}: ${edits[chosen(u)]}, ${bits(u).toPrecision(3)} bits per weight, ${size(DATA.bytes[u][chosen(u)])} of ${size(before(u))}, damage ${short(scaled(u, chosen(u)))}`;
  function tell(what) {
    const us = what.us ?? [what.u], sum = (of) => us.reduce((s, u) => s + of(u), 0);
    $("about").textContent = what.us ? `${what.group}: ${us.length} units, ${size(sum((u) => DATA.bytes[u][chosen(u)]))} of ${size(sum(before))}, damage ${short(sum((u) => scaled(u, chosen(u))))}` : line(what.u);
  }
  function open(what) {
    const path = what.us ? [what.group] : what.matrix ? state.path : state.path.length || what.alone ? [what.group, what.u] : [what.group];
    if (path.length === state.path.length && path.every((one, at) => one === state.path[at])) return;
    state.path = path; map(); enter();
  }
  function close() { if (!state.path.length) return; const alone = state.path.length === 2 && tree.get(state.path[0]).length === 1; state.path = alone ? [] : state.path.slice(0, -1); map(); enter() }
  function enter() { for (const tile of tiles.values()) tile.tabIndex = -1; const first = [...tiles.values()][0]; if (first) { first.tabIndex = 0; first.focus({ preventScroll: true }) } }
  box.onkeydown = (event) => { // arrows go to the nearest tile that way; Enter zooms in, Escape out
    if (event.key === "Escape" || event.key === "Backspace") { event.preventDefault(); close(); return }
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const centre = (tile) => [tile.offsetLeft + tile.offsetWidth / 2, tile.offsetTop + tile.offsetHeight / 2];
    const from = document.activeElement, [x, y] = centre(from);
    const ahead = [...tiles.values()].filter((tile) => tile !== from && tile.classList[0] === from.classList[0])
      .map((tile) => { const [a, b] = centre(tile), along = (a - x) * way[0] + (b - y) * way[1], off = Math.abs((a - x) * way[1]) + Math.abs((b - y) * way[0]); return [along > 1 ? along + 2 * off : Infinity, tile] });
    const [far, to] = ahead.reduce((best, one) => one[0] < best[0] ? one : best, [Infinity, null]);
    if (to && far < Infinity) { from.tabIndex = -1; to.tabIndex = 0; to.focus({ preventScroll: true }) }
  };
  function crumbs() {
    const names = ["the network", ...state.path.map((one) => typeof one === "number" ? units[one][0] : one)].filter((name, at, all) => name !== all[at - 1]);
    $("crumbs").replaceChildren(...names.flatMap((name, at) => {
      const last = at === names.length - 1, part = last ? make("span", { textContent: name, ariaCurrent: "true" }) : make("button", { type: "button", textContent: name });
      if (last) part.setAttribute("aria-current", "true"); else part.onclick = () => { state.path = state.path.slice(0, at); map(); enter() };
      return at ? ["›", part] : [part];
    }));
  }
  function scale(top, least) {
    const bar = make("i"), [name, low, high] = state.colour === "edit" ? ["--bits", leanest.toPrecision(2), `${most.toPrecision(2)} bits per weight; striped: kept`] : ["--hurt", short(least), `${short(top)} nats per ${DATA.each}`];
    bar.style.background = `linear-gradient(to right, ${scales[name].join(", ")})`;
    $("scale").replaceChildren(low, bar, high);
  }
  function menu() { // of one unit: all that it could have had
    const unit = state.path[1]; $("menu").hidden = unit === undefined;
    if (unit === undefined) return;
    const offered = edits.map((_, e) => e).filter((e) => DATA.bytes[unit][e] !== null).sort((a, b) => DATA.bytes[unit][a] - DATA.bytes[unit][b]);
    $("menu").tBodies[0].replaceChildren(...offered.map((e) => make("tr", { className: e === chosen(unit) ? "chosen" : "" }, make("td", {}, make("code", { textContent: edits[e] }), e === chosen(unit) ? "  ← this plan" : ""),
      make("td", { textContent: bits(unit, e).toFixed(3) }), make("td", { textContent: many(DATA.bytes[unit][e]) }), make("td", { textContent: short(scaled(unit, e)) }))));
  }
  function picture() { // the map as SVG, as it is seen
    const ns = "http://www.w3.org/2000/svg", out = document.createElementNS(ns, "svg"), put = (tag, more, text) => { const one = document.createElementNS(ns, tag); for (const [k, v] of Object.entries(more)) one.setAttribute(k, v); if (text) one.textContent = text; out.append(one) };
    out.setAttribute("viewBox", `0 0 ${box.clientWidth} ${box.clientHeight}`);
    for (const tile of [...tiles.values()].sort((a, b) => a.classList.contains("leaf") - b.classList.contains("leaf"))) {
      const seen = getComputedStyle(tile), [x, y] = [tile.offsetLeft, tile.offsetTop];
      put("rect", { x, y, width: tile.offsetWidth, height: tile.offsetHeight, style: `fill:${seen.backgroundColor};stroke:${css("--paper")}` });
      [...tile.childNodes].forEach((node, at) => put("text", { x: x + 5, y: y + 14 + 15 * at, style: `fill:${seen.color};font:12px sans-serif` }, node.textContent));
    }
    out.setAttribute("class", "fits"); out.style.position = "absolute"; out.style.left = "-99rem"; document.body.append(out); setTimeout(() => out.remove(), 0);
    return out;
  }
  save($("map-figure"), picture);
  let seen = box.clientWidth; // drawn for this width; the observer also calls when it begins
  new ResizeObserver(() => { if (box.clientWidth !== seen) { seen = box.clientWidth; map() } }).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", map);
  slider.value = home;
  show();
}
