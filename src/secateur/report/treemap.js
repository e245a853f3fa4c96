// A map of areas that one can come nearer to: tiles are buttons, reached by mouse and by arrow keys; crumbs lead back.
const scales = {}; // the style's scales of colours, read once a drawing: asking the style is slow
function blend(name, share) { // a colour on a scale, from 0 to 1
  const stops = scales[name], at = Math.min(Math.max(share, 0), 1) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
  const [a, b] = [stops[low], stops[low + 1]].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  return a.map((x, i) => Math.round(x + (b[i] - x) * (at - low)));
}
const readable = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b) > 140 ? "#111" : "#fff";
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

// `how`: layout(path, wide, high) gives [key, x, y, wide, high, what] of every tile; dress(tile, what, wide, high) fills
// one; tell(what) says it in words; step(what, path) is where a click leads, or nothing; up(path) where Escape leads;
// names(path) are the crumbs; drawn(path) is called behind every drawing
function treemap(box, crumbs, about, how) {
  const tiles = new Map(); // the buttons there are, so that they move instead of being made anew
  let path = [];
  function draw() {
    for (const name of ["--bits", "--hurt", "--turn", "--chosen"]) scales[name] = css(name).split(" ");
    const places = how.layout(path, box.clientWidth, box.clientHeight), there = new Set(places.map(([key]) => key));
    for (const [key, tile] of tiles) if (!there.has(key)) { tile.remove(); tiles.delete(key) }
    for (const [key, x, y, w, h, what] of places) {
      let tile = tiles.get(key);
      if (!tile) { tile = make("button", { type: "button", tabIndex: -1 }); tiles.set(key, tile); box.append(tile) }
      const [across, down] = [(v) => `${100 * v / box.clientWidth}%`, (v) => `${100 * v / box.clientHeight}%`]; // so that paper is as good as a window
      Object.assign(tile.style, { left: across(x), top: down(y), width: across(w), height: down(h) });
      how.dress(tile, what, w, h);
      tile.onclick = () => open(what); tile.onpointerenter = tile.onfocus = () => { about.textContent = how.tell(what) };
    }
    const first = [...tiles.values()][0];
    if (first && !box.querySelector("[tabindex='0']")) first.tabIndex = 0;
    trail(); how.drawn?.(path);
  }
  function go(to) { path = to; draw(); enter() }
  function open(what) { const to = how.step(what, path); if (to && String(to) !== String(path)) go(to) }
  function close() { if (path.length) go(how.up ? how.up(path) : path.slice(0, -1)) }
  function enter() { for (const tile of tiles.values()) tile.tabIndex = -1; const first = [...tiles.values()][0]; if (first) { first.tabIndex = 0; first.focus({ preventScroll: true }) } }
  function trail() {
    const names = how.names(path).map((name, at) => [name, path.slice(0, at)]).filter(([name], at, all) => !at || name !== all[at - 1][0]);
    crumbs.replaceChildren(...names.flatMap(([name, to], at) => {
      const last = at === names.length - 1, part = last ? make("span", { textContent: name }) : make("button", { type: "button", textContent: name });
      if (last) part.setAttribute("aria-current", "true"); else part.onclick = () => go(to);
      return at ? ["›", part] : [part];
    }));
  }
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
  function picture() { // the map as SVG, as it is seen
    const ns = "http://www.w3.org/2000/svg", out = document.createElementNS(ns, "svg"), put = (tag, more, text) => { const one = document.createElementNS(ns, tag); for (const [k, v] of Object.entries(more)) one.setAttribute(k, v); if (text) one.textContent = text; out.append(one) };
    out.setAttribute("viewBox", `0 0 ${box.clientWidth} ${box.clientHeight}`);
    for (const tile of [...tiles.values()].sort((a, b) => a.classList.contains("leaf") - b.classList.contains("leaf"))) {
      const seen = getComputedStyle(tile), [x, y] = [tile.offsetLeft, tile.offsetTop];
      put("rect", { x, y, width: tile.offsetWidth, height: tile.offsetHeight, style: `fill:${seen.backgroundColor};stroke:${css("--paper")}` });
      [...tile.querySelectorAll("img")].forEach((one) => put("image", { x: x + one.offsetLeft, y: y + one.offsetTop, width: one.offsetWidth, height: one.offsetHeight, href: one.src, style: "image-rendering:pixelated" }));
      [...tile.children].filter((node) => node.textContent).forEach((node, at) => put("text", { x: x + 5, y: y + 14 + 15 * at, style: `fill:${seen.color};font:12px sans-serif` }, node.textContent.slice(0, Math.max(1, Math.floor(tile.offsetWidth / 6.2) - 1))));
    }
    out.setAttribute("class", "fits"); out.style.position = "absolute"; out.style.left = "-99rem"; document.body.append(out); setTimeout(() => out.remove(), 0);
    return out;
  }
  save(box.closest("figure"), picture);
  let seen = box.clientWidth; // drawn for this width; the observer also calls when it begins
  new ResizeObserver(() => { if (box.clientWidth !== seen) { seen = box.clientWidth; draw() } }).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return { draw, path: () => path };
}
function legend(place, name, low, high) { // a scale of colours and what its ends are
  const bar = make("i"); bar.style.background = `linear-gradient(to right, ${scales[name].join(", ")})`;
  place.replaceChildren(low, bar, high);
}
