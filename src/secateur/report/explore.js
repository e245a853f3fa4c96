// The budget: a slider through the plans, and everything that shows the one it stands on, the network as a map among it.
if (DATA.plans) explore();
function explore() {
  const { units, edits, plans, by } = DATA, home = DATA.ours ?? Math.floor(plans.length / 2);
  const slider = $("budget"), state = { at: home, area: "after", colour: "edit" };
  const price = (name, u, e = chosen(u), plan = plans[state.at]) => DATA.prices[plan.prices][name][u][e]; // prices hang on the plan's widths
  const whole = plans.map((plan) => plan.choice.reduce((sum, e, u) => sum + (price("damage", u, e, plan) ?? 0), 0));
  const scaled = (u, e) => (price("damage", u, e) ?? 0) * (whole[state.at] > 0 ? plans[state.at].damage / whole[state.at] : 1);
  const chosen = (u, plan = plans[state.at]) => plan.choice[u];
  const bits = (u, e = chosen(u), plan = plans[state.at]) => 8 * price("payload", u, e, plan) / units[u][3];
  const kept = (u) => edits[chosen(u)].startsWith("keep");
  const before = (u) => DATA.before.length ? DATA.before[u][0] ?? 2 * units[u][3] : 2 * units[u][3];
  const area = (u) => state.area === "before" ? before(u) : price(state.area === "by" ? "by" : "bytes", u);
  const areas = ["after", "before", "by"].filter((name) => $(`area-${name}`));
  let leanest = Infinity, most = 0; // bits of what is cut, in any of the plans: one scale of colours for all of them
  for (const plan of plans) plan.choice.forEach((e, u) => { if (!edits[e].startsWith("keep")) { const b = bits(u, e, plan); leanest = Math.min(leanest, b); most = Math.max(most, b) } });

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

  const shown = [by, ...["bits_per_weight", "bytes"].filter((name) => name !== by)];
  const called = { bits_per_weight: "bits per weight", flops: "FLOPs", kv: "cache per token", seconds: "latency" };
  const exact = (name, x) => name === "bits_per_weight" ? x.toFixed(3) : name === "seconds" ? amount(name, x) : many(x);
  function show() {
    const plan = plans[state.at], mine = state.at === DATA.ours, known = shown.filter((name) => plan.spent[name] != null);
    const [told, ...more] = known.map((name) => amount(name, plan.spent[name]));
    $("said").replaceChildren(make("b", { textContent: told }), ...more.map((said) => make("span", { textContent: said })),
      make("span", { textContent: `${nats(plan.damage)} ± ${nats(plan.error)} nats per ${DATA.each}` }), make("span", { className: "pin", textContent: mine ? "this plan" : "" }));
    slider.setAttribute("aria-valuetext", `${told}, ${nats(plan.damage)} nats per ${DATA.each}${mine ? ", this plan" : ""}`);
    $("back").disabled = state.at === home;
    const dot = dots.find((one) => +one.dataset.at === state.at);
    if (dot) { here.setAttribute("cx", dot.getAttribute("cx")); here.setAttribute("cy", dot.getAttribute("cy")) }
    const gap = plan.floor > 0 ? plan.damage / plan.floor - 1 : 0;
    facts({ ...Object.fromEntries(known.map((name) => [called[name] ?? name, exact(name, plan.spent[name])])), "damage expected": `${nats(plan.damage)} ± ${nats(plan.error)}`,
      "proven floor": `${nats(plan.floor)}${gap < 5e-5 ? ", reached" : `, ${(100 * gap).toFixed(2)}% below`}` });
    mixture(); columns(); table(); map.draw();
    $("plan").textContent = `secateur plan ${$("plan").dataset.menu} --budget "${plan.asked}" -o plan.yaml`;
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
    const line = picture.querySelector(".mean"), y = (ground - Math.min(plans[state.at].spent.bits_per_weight / limit, 1) * (ground - top)).toFixed(1);
    if (line) { line.setAttribute("y1", y); line.setAttribute("y2", y); const said = picture.querySelector(".said"); said.setAttribute("y", +y + 4); said.textContent = plans[state.at].spent.bits_per_weight.toPrecision(3) }
  }
  function table() {
    for (const row of $("units").tBodies[0].rows) {
      const u = +row.dataset.u, e = chosen(u), put = (name, value, text) => { const cell = row.querySelector(`[data-c=${name}]`); cell.dataset.v = value; cell.textContent = text };
      put("bits", bits(u), bits(u).toFixed(3)); put("bytes", price("bytes", u, e), many(price("bytes", u, e))); put("damage", scaled(u, e), scaled(u, e).toFixed(6));
      row.querySelector("code").textContent = edits[e];
    }
    $("whose").textContent = state.at === DATA.ours ? "" : ` Shown is the plan at ${amount(by, plans[state.at].spent[by])}, not the one carried out.`;
  }

  // ---------------------------------------------------------------------------------------------- the map
  const tree = new Map(); // block -> units; what lies outside the blocks stands alone
  const depth = (unit) => unit[1] === "embedding" ? -1 : unit[2] ?? Infinity;
  units.map((unit, u) => [unit, u]).sort(([a], [b]) => Math.sign(depth(a) - depth(b)) || 0).forEach(([unit, u]) => {
    const key = unit[2] === null ? unit[0] : `block ${unit[2]}`;
    tree.has(key) ? tree.get(key).push(u) : tree.set(key, [u]);
  });
  const choices = [["area", areas], ["colour", ["edit", "damage"]]];
  for (const [name, values] of choices) for (const value of values) $(`${name}-${value}`).onclick = () => { state[name] = value; map.draw() };

  let top = 1, least = 1; // of the damages of this plan
  function paint(u) { // by the bits it got, or by the damage expected of it, on a logarithmic scale
    if (state.colour === "edit") return blend("--bits", kept(u) ? 1 : (bits(u) - leanest) / (most - leanest || 1));
    const d = scaled(u, chosen(u));
    return blend("--hurt", d <= 0 ? 0 : Math.log(d / least) / (Math.log(top / least) || 1));
  }
  const leafName = (name) => name.replace(/\.\*$/, "").split(".").slice(-1)[0];
  const own = units.map(([name]) => leafName(name)); // in its block; the whole name where that tells nothing apart
  for (const us of tree.values()) if (new Set(us.map((u) => own[u])).size < us.length) for (const u of us) own[u] = units[u][0];
  function layout(path, wide, high) {
    for (const [name, values] of choices) for (const value of values) $(`${name}-${value}`).setAttribute("aria-pressed", state[name] === value);
    const damages = units.map((_, u) => scaled(u, chosen(u))).filter((d) => d > 0);
    top = Math.max(...damages, 1e-12); least = Math.max(Math.min(...damages), top / 1e4);
    const sum = (us) => us.reduce((s, u) => s + area(u), 0), [group, unit] = path, out = [];
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
  function dress(tile, what, w, h) {
    tile.className = what.us ? "group" : "leaf";
    if (what.us) dressGroup(tile, what, w); else dressLeaf(tile, what, w, h, paint(what.u));
  }
  function dressGroup(tile, { group, us }, w) {
    tile.style.backgroundColor = ""; tile.style.color = "";
    tile.replaceChildren(make("span", { textContent: w > 76 ? group : w > 24 ? group.replace("block ", "") : "" }));
    tile.setAttribute("aria-label", `${group}, ${us.length} units, ${size(us.reduce((s, u) => s + price("bytes", u), 0))}: zoom in`);
  }
  function dressLeaf(tile, { u, matrix }, w, h, rgb) {
    tile.style.backgroundColor = `rgb(${rgb})`; tile.style.color = readable(rgb);
    tile.classList.toggle("kept", kept(u));
    const name = matrix ? leafName(matrix[0].replace(/\.weight$/, "")) : own[u], said = matrix ? `${many(matrix[1])} × ${many(matrix[2])}` : kept(u) ? "kept" : `${bits(u).toPrecision(3)} bits`;
    tile.replaceChildren(...(w > 46 && h > 17 ? [make("span", { textContent: name })] : []), ...(w > 50 && h > 34 ? [make("small", { textContent: said })] : []),
      ...(w > 120 && h > 62 ? [make("small", { textContent: matrix ? edits[chosen(u)] : `${state.area === "by" ? amount(by, price("by", u)) : size(price("bytes", u))}` })] : []));
    tile.setAttribute("aria-label", line(u) + (matrix ? `, matrix ${matrix[0]}` : ""));
  }
  const line = (u) => `${units[u][0]}: ${edits[chosen(u)]}, ${bits(u).toPrecision(3)} bits per weight, ${size(price("bytes", u))} of ${size(before(u))}${DATA.prices[0].by ? `, ${amount(by, price("by", u))}` : ""}, damage ${short(scaled(u, chosen(u)))}`;
  function tell(what) {
    const us = what.us ?? [what.u], sum = (of) => us.reduce((s, u) => s + of(u), 0);
    return what.us ? `${what.group}: ${us.length} units, ${size(sum((u) => price("bytes", u)))} of ${size(sum(before))}, damage ${short(sum((u) => scaled(u, chosen(u))))}` : line(what.u);
  }
  const map = treemap($("map"), $("crumbs"), $("about"), {
    layout, dress, tell,
    step: (what, path) => what.us ? [what.group] : what.matrix ? path : path.length || what.alone ? [what.group, what.u] : [what.group],
    up: (path) => path.length === 2 && tree.get(path[0]).length === 1 ? [] : path.slice(0, -1),
    names: (path) => ["the network", ...path.map((one) => typeof one === "number" ? units[one][0] : one)],
    drawn(path) {
      $("map").classList.toggle("leaf", path.length === 2);
      if (state.colour === "edit") legend($("scale"), "--bits", leanest.toPrecision(2), `${most.toPrecision(2)} bits per weight; striped: kept`);
      else legend($("scale"), "--hurt", short(least), `${short(top)} nats per ${DATA.each}`);
      menu(path[1]);
    },
  });
  function menu(unit) { // of one unit: all that it could have had
    $("menu").hidden = unit === undefined;
    if (unit === undefined) return;
    const offered = edits.map((_, e) => e).filter((e) => price("bytes", unit, e) !== null).sort((a, b) => price("bytes", unit, a) - price("bytes", unit, b));
    $("menu").tBodies[0].replaceChildren(...offered.map((e) => make("tr", { className: e === chosen(unit) ? "chosen" : "" }, make("td", {}, make("code", { textContent: edits[e] }), e === chosen(unit) ? "  ← this plan" : ""),
      make("td", { textContent: bits(unit, e).toFixed(3) }), make("td", { textContent: many(price("bytes", unit, e)) }), make("td", { textContent: short(scaled(unit, e)) }))));
  }
  slider.value = home;
  show();
}
