// Examples as clusters, as the tree has them; a click opens one, down to single examples. Where it hurt, or what was kept.
if (DATA.examples) hurt(DATA.examples);
function hurt({ each, children, distance, central, said, pictures, colours, marked, mark, weights }) {
  const n = children.length + 1, root = 2 * n - 2, edged = new Set(marked), below = (node) => node < n ? [] : children[node - n];
  const leaves = Array(n).fill(1), counts = weights.length ? [...weights] : Array(n).fill(1), means = colours.map(({ values }) => [...values]); // of every node; examples come first
  for (const [a, b] of children) {
    for (const mean of means) mean.push((mean[a] * counts[a] + mean[b] * counts[b]) / (counts[a] + counts[b]));
    counts.push(counts[a] + counts[b]); leaves.push(leaves[a] + leaves[b]);
  }
  function members(node) { const out = [], rest = [node]; while (rest.length) { const one = rest.pop(); if (one < n) out.push(one); rest.push(...[...below(one)].reverse()) } return out }
  function visible(k, top) { // the widest merge is opened until so many are seen
    const seen = [top];
    while (seen.length < k) {
      const widest = seen.reduce((best, node) => (distance[node - n] ?? -1) > (distance[best - n] ?? -1) ? node : best);
      if (widest < n) break;
      seen.splice(seen.indexOf(widest), 1, ...below(widest));
    }
    return new Set(seen);
  }
  function split(node, seen, x, y, w, h, out) { // a rectangle falls in two along its longer side
    if (seen.has(node)) { out.push([`n${node}`, x, y, w, h, { node }]); return out }
    const [a, b] = below(node), share = counts[a] / counts[node];
    if (w >= h) { split(a, seen, x, y, w * share, h, out); split(b, seen, x + w * share, y, w * (1 - share), h, out) }
    else { split(a, seen, x, y, w, h * share, out); split(b, seen, x, y + h * share, w, h * (1 - share), out) }
    return out;
  }

  let colour = 0;
  const { max, min, sqrt, floor } = Math, all = (node) => counts[node] === 1 ? `one ${each}` : `${many(counts[node])} ${each}s`;
  const told = (at, value) => colours[at].unit === "%" ? `${(100 * value).toFixed(1)}%` : nats(value), behind = (unit) => unit === "%" || !unit ? "" : ` ${unit}`;
  const signed = () => colours[colour].values.some((value) => value < 0);
  let low = 0, top = 1; // the ends of the scale: the means of the clusters that are seen
  function paint(node) { // small differences are told apart, too: the root of the share
    const value = means[colour][node];
    if (signed()) return blend("--turn", 0.5 + 0.5 * Math.sign(value) * sqrt(min(Math.abs(value) / top, 1)));
    return blend(`--${colours[colour].scale}`, top > low ? sqrt(max(value - low, 0) / (top - low)) : 0.5);
  }
  function layout(path, wide, high) {
    colours.forEach((_, at) => $(`lost-${at}`).setAttribute("aria-pressed", at === colour));
    const node = path.at(-1) ?? root, few = leaves[node] <= 12;
    const seen = visible(few ? leaves[node] : max(2, min(24, floor(wide * high / 16000), Math.ceil(leaves[node] / 3))), node);
    const shown = [...seen].map((one) => means[colour][one]);
    top = max(...shown.map(Math.abs), 1e-12); low = signed() ? -top : colours[colour].unit === "%" ? 0 : min(...shown);
    return split(node, seen, 0, 0, wide, high, []);
  }
  function dress(tile, { node }, w, h) {
    const rgb = paint(node), alone = map.path().at(-1) === node;
    tile.className = "leaf"; tile.style.backgroundColor = `rgb(${rgb})`; tile.style.color = readable(rgb);
    const inside = [];
    if (w > 44 && h > 20) inside.push(make("b", { textContent: counts[node] === 1 ? told(colour, means[colour][node]) : w > 86 ? `${w > 168 ? all(node) : many(counts[node])}, ${told(colour, means[colour][node])}` : many(counts[node]) }));
    if (pictures.length && h > 40 && w > 30) inside.push(thumbs(node, w, h, alone));
    else if (!pictures.length && w > 90 && h > 50) inside.push(quote(said[central[node]].slice(0, floor(w * h / 60)), h, alone));
    if (pictures.length && alone) inside.push(quote(said[node], h, alone));
    tile.replaceChildren(...inside);
    tile.setAttribute("aria-label", `${tell({ node })}${node >= n ? ": zoom in" : ""}`);
  }
  function quote(text, h, alone) { // whole lines of it
    const line = alone ? 22 : 15, one = make("span", { className: alone ? "quote one" : "quote", textContent: text });
    one.style.maxHeight = `${max(1, floor((h - 30) / line)) * line}px`;
    return one;
  }
  function thumbs(node, w, h, alone) { // as many small pictures as there is room for; those that are marked have an edge
    const some = members(node), room = max(1, (w - 12) * (h - 34)), side = alone ? min(160, w - 12, h - 60) : max(16, min(44, floor(sqrt(room / some.length)) - 3));
    const fit = max(1, floor((w - 10) / (side + 2))) * max(1, floor((h - 30) / (side + 2))), box = make("div", { className: "few" });
    const shown = some.length <= fit ? some : Array.from({ length: fit }, (_, at) => some[floor(at * some.length / fit)]);
    box.append(...shown.map((one) => make("img", { src: pictures[one], alt: "", width: side, height: side, className: edged.has(one) ? mark : "" })));
    return box;
  }
  function tell({ node }) {
    const values = colours.map(({ name, unit }, at) => `${name} ${told(at, means[at][node])}${behind(unit)}`).join(", ");
    return `${all(node)}: ${values}. ${counts[node] === 1 ? "" : "In their midst: "}${said[central[node]].replace(/\s+/g, " ").slice(0, 160)}`;
  }
  const map = treemap($("lost"), $("lost-crumbs"), $("lost-about"), {
    layout, dress, tell,
    step: ({ node }, path) => path.at(-1) === node ? null : [...path, node],
    names: (path) => [`all ${many(counts[root])} ${each}s`, ...path.map(all)],
    drawn() {
      const note = marked.length && pictures.length ? mark === "wrong" ? "; edged: turned wrong" : "; edged: kept" : "";
      legend($("lost-scale"), signed() ? "--turn" : `--${colours[colour].scale}`, told(colour, low), `${told(colour, top)}${behind(colours[colour].unit)}${note}`);
    },
  });
  colours.forEach((_, at) => { $(`lost-${at}`).onclick = () => { colour = at; map.draw() } });
  map.draw();
}
