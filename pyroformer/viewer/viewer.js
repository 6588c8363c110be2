"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const state = { input: 0, layer: 0, head: 0, query: 0, show: "mean" };
const find = (id) => document.getElementById(id);
const number = (v, digits = 2) => (v === null ? "–" : v !== 0 && Math.abs(v) < 0.5 * 10 ** -digits ? v.toPrecision(1) : v.toFixed(digits));

function bytesOf(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

for (const layer of data.layers) {
  for (const kind of ["mean", "sd"]) {
    const { most, bytes } = layer[kind];
    layer[kind] = Float32Array.from(bytesOf(bytes), (b) => most * (b / 255) ** 2);
  }
}

const shown = data.shown;
const pixels = shown.pixels && bytesOf(shown.pixels);
const inputs = data.prediction.mean.length;

/* The entries of one matrix [queries, keys]. */
function matrix(layer, kind, head) {
  const [, queries, keys] = layer.shape;
  const start = (state.input * layer.shape[0] + head) * queries * keys;
  return layer[kind].subarray(start, start + queries * keys);
}

function rowOf(layer, kind, head, query) {
  const keys = layer.shape[2];
  return matrix(layer, kind, head).subarray(query * keys, (query + 1) * keys);
}

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "rect", "line", "text", "path", "title", "g"].includes(tag);
  const element = svg ? document.createElementNS(find("drawing").namespaceURI, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function color(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/* Numbers as a picture of one pixel each, from the paper's colour to that of what they are. */
function painted(values, width, height, most, kind) {
  const canvas = make("canvas", { width, height });
  const image = new ImageData(width, height), paper = color("--paper"), full = color(`--${kind}`);
  values.forEach((value, i) => {
    const t = most > 0 ? Math.min(1, value / most) : 0;
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = paper[c] + (full[c] - paper[c]) * t;
    image.data[4 * i + 3] = 255;
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function picture(input) {
  const { width, height, channels } = shown, size = width * height;
  const canvas = make("canvas", { width, height }), image = new ImageData(width, height);
  const own = pixels.subarray(input * size * channels, (input + 1) * size * channels);
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = own[(channels === 3 ? c : 0) * size + i];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const largest = (values) => values.reduce((a, b) => Math.max(a, b), 0);
const layerNow = () => data.layers[state.layer];

/* How many tokens an input has: those that attention can be painted on. */
function tokens() {
  if (shown.kind === "image") return (shown.width / shown.patch) * (shown.height / shown.patch);
  if (shown.kind === "tokens") return shown.tokens[state.input].length;
  if (shown.kind === "series") return shown.values[state.input].length;
  if (shown.kind === "features") return shown.values[state.input].length * shown.copies;
  return layerNow().shape[2];
}

const featureName = (i) => (shown.features ? shown.features[i] : `x${i + 1}`);

/* Of which sequence the queries and the keys of a layer are: a decoder that reads a source has two. */
function sideOf(layer, axis) {
  const sides = shown.sides && shown.sides[layer.name];
  return sides ? sides[axis] : "source";
}

const queriesAreShown = (layer) => layer.shape[1] === tokens() && sideOf(layer, 0) === "source";
const keysAreShown = (layer) => layer.shape[2] === tokens() && sideOf(layer, 1) === "source";
const queryName = (index) => (sideOf(layerNow(), 0) === "target" ? `target ${index}` : tokenName(index, layerNow().shape[1]));
const keyName = (index) => (sideOf(layerNow(), 1) === "target" ? `target ${index}` : tokenName(index, layerNow().shape[2]));

function tokenName(index, count) {
  if (count !== tokens()) return `${index}`;
  if (shown.kind === "image") {
    const across = shown.width / shown.patch;
    return `patch ${Math.floor(index / across) + 1}·${(index % across) + 1}`;
  }
  if (shown.kind === "tokens") return `${shown.tokens[state.input][index]} (${index})`;
  if (shown.kind === "series") return `step ${index}`;
  if (shown.kind === "features") {
    const copy = index % shown.copies, name = featureName(Math.floor(index / shown.copies));
    return shown.copies > 1 ? `${name}, copy ${copy + 1}` : name;
  }
  return `token ${index}`;
}

const isClasses = data.measure === "entropy";
const className = (index) => (shown.classes ? shown.classes[index] : `${index}`);

/* Where predictions are per token, those of the chosen query. */
function ofToken(values) {
  const perToken = isClasses && Array.isArray(data.prediction.mean[0][0]);
  return perToken ? values[Math.min(state.query, values.length - 1)] : values;
}

const predicted = (input) => data.prediction.mean[input];
const best = (p) => p.indexOf(Math.max(...p));

function drawInputs() {
  const parent = find("inputs");
  parent.replaceChildren();
  for (let n = 0; n < inputs; n++) {
    const p = predicted(n), truth = data.truth && data.truth[n];
    const simple = isClasses && !Array.isArray(p[0]), ids = data.prediction.classes && data.prediction.classes[n];
    const said = simple && (ids ? ids[best(p)] : best(p)), right = simple && truth !== null && said === truth;
    const content = [];
    if (shown.kind === "image") content.push(picture(n));
    if (shown.kind === "tokens") content.push(make("span", { class: "words" }, shown.tokens[n].filter((t) => t !== shown.padding).join(shown.unit === "character" ? "" : " ")));
    if (!content.length) content.push(make("span", { class: "words" }, `input ${n}`));
    if (simple) {
      content.push(make("span", { class: truth !== null && !right ? "wrong" : null }, truth === null || right ? className(said) : `${className(truth)}, said ${className(said)}`));
    } else if (!isClasses) content.push(make("span", {}, p.map((v) => number(v)).join(", ")));
    parent.append(make("button", {
      role: "radio", "aria-checked": n === state.input, tabindex: n === state.input ? 0 : -1,
      "aria-label": `input ${n}` + (simple && truth !== null ? `, ${className(truth)}` : ""), onclick: () => choose({ input: n }),
    }, ...content));
  }
}

/* A button or a group listens to the arrow keys: by `across` and `down` it steps through what it chooses. */
function steps(element, across, down, step) {
  element.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -across, ArrowRight: across, ArrowUp: -down, ArrowDown: down }[event.key];
    if (by) {
      event.preventDefault();
      step(by);
    }
  });
}

const stepQuery = (by) => {
  const next = state.query + by;
  if (next >= 0 && next < layerNow().shape[1]) choose({ query: next });
};

function drawInput() {
  const parent = find("input"), layer = layerNow(), kind = state.show;
  const values = rowOf(layer, kind, state.head, state.query), most = largest(values), count = tokens();
  const chooses = queriesAreShown(layer), paints = keysAreShown(layer);
  const held = parent.contains(document.activeElement);
  const focusable = { tabindex: 0, role: "group", "aria-label": "Tokens of the input; arrow keys choose the query" };
  const share = (i) => (paints && most > 0 ? values[i] / most : 0);
  let content;
  if (shown.kind === "image") {
    const { width, height, patch } = shown, across = width / patch;
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": true });
    let chosen = null;
    for (let i = 0; i < count; i++) {
      const place = { x: (i % across) * patch, y: Math.floor(i / across) * patch, width: patch, height: patch };
      const rect = make("rect", { ...place, fill: `var(--${kind})`, "fill-opacity": 0.82 * share(i), onclick: () => chooses && choose({ query: i }) });
      if (paints) rect.append(make("title", {}, `${tokenName(i, count)}: ${number(values[i], 3)}`));
      if (chooses && i === state.query) chosen = [rect, place];
      else svg.append(rect);
    }
    if (chosen) {
      chosen[0].setAttribute("class", "query");
      svg.append(make("rect", { ...chosen[1], class: "halo" }), chosen[0]);
    }
    content = make("div", { class: "picture", ...focusable }, picture(state.input), svg);
    steps(content, 1, across, stepQuery);
  } else if (shown.kind === "series") {
    content = make("div", focusable, series(count, share, chooses));
    steps(content, 1, 1, stepQuery);
  } else {
    const text = shown.kind === "tokens";
    content = make("div", { class: text ? "text" : "list", ...focusable });
    const ahead = `rgb(${color(`--${kind}`).join(" ")} / `;
    for (let i = 0; i < count; i++) {
      const button = make("button", {
        tabindex: -1, "aria-pressed": chooses && i === state.query, style: `background-color: ${ahead}${(0.75 * share(i)).toFixed(3)})`,
        title: paints ? `${tokenName(i, count)}: ${number(values[i], 3)}` : null, onclick: () => chooses && choose({ query: i }),
        class: text && chooses && layer.keys[state.input][i] === 0 ? "nothing" : null,
      }, text ? shown.tokens[state.input][i] : tokenName(i, count));
      if (shown.kind === "features") button.append(make("span", {}, number(shown.values[state.input][Math.floor(i / shown.copies)])));
      content.append(button);
    }
    steps(content, 1, 1, stepQuery);
  }
  parent.replaceChildren(content);
  if (held) content.focus();
  find("input-heading").textContent = `Input ${state.input}` + (chooses ? `, query ${queryName(state.query)}` : "");
  find("hint").textContent = chooses ? "Click a token, or step with the arrow keys, to choose the query whose row is painted." : "This layer's queries are not the tokens of the input: choose one in the matrix.";
}

function series(count, share, chooses) {
  const width = 300, height = 180, features = shown.values[state.input][0].length;
  const flat = shown.values[state.input].flat().filter((v) => v !== null);
  const low = Math.min(...flat), span = Math.max(...flat) - low || 1;
  const x = (i) => ((i + 0.5) * width) / count, y = (v) => height - 8 - ((v - low) / span) * (height - 16);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, style: "width:100%;display:block;border:1px solid var(--line)", "aria-hidden": true });
  for (let i = 0; i < count; i++) {
    const query = chooses && i === state.query;
    svg.append(make("rect", {
      x: (i * width) / count, y: 0, width: width / count, height, fill: `var(--${state.show})`, "fill-opacity": 0.75 * share(i),
      class: query ? "query" : null, style: "cursor:pointer", onclick: () => chooses && choose({ query: i }),
    }, make("title", {}, tokenName(i, count))));
  }
  for (let f = 0; f < features; f++) {
    const points = shown.values[state.input].map((v, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(v[f] ?? low).toFixed(1)}`).join("");
    svg.append(make("path", { d: points, fill: "none", stroke: "var(--ink)", "stroke-width": 1.4, "stroke-opacity": 1 - f / (features + 1), style: "pointer-events:none" }));
  }
  return svg;
}

function drawMatrices() {
  const layer = layerNow(), [heads, queries, keys] = layer.shape;
  for (const kind of ["mean", "sd"]) {
    const values = matrix(layer, kind, state.head), most = largest(values), parent = find(kind);
    const canvas = painted(values, keys, queries, most, kind), mark = make("i");
    mark.style.top = `calc(${(100 * state.query) / queries}% - 2px)`;
    mark.style.height = `calc(${100 / queries}% + 4px)`;
    canvas.setAttribute("aria-hidden", true);
    parent.replaceChildren(canvas, mark);
    const bar = make("b");
    bar.style.background = `linear-gradient(to right, var(--paper), var(--${kind}))`;
    find(`${kind}-scale`).replaceChildren("0", bar, number(most));
  }
  find("rows-heading").textContent = `Rows of ${layer.name}, head ${state.head}`;
}

function drawRow() {
  const layer = layerNow(), keys = layer.shape[2], width = 560, height = 130, base = height - 16;
  const mean = rowOf(layer, "mean", state.head, state.query), sd = rowOf(layer, "sd", state.head, state.query);
  const most = largest(mean.map((m, i) => m + sd[i])) || 1, slot = (width - 34) / keys;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "The query's row: mean and standard deviation by key" });
  const y = (v) => base - (v / most) * (base - 8);
  for (const v of [0, most / 2, most]) {
    svg.append(make("line", { x1: 32, x2: width, y1: y(v), y2: y(v), stroke: "var(--line)", "stroke-width": 0.7 }), make("text", { x: 28, y: y(v) + 3, "text-anchor": "end" }, number(v)));
  }
  for (let i = 0; i < keys; i++) {
    const left = 34 + i * slot, middle = left + slot / 2;
    svg.append(make("rect", { x: left + slot * 0.12, width: slot * 0.76, y: y(mean[i]), height: base - y(mean[i]), fill: "var(--mean)", "fill-opacity": 0.6 }, make("title", {}, `${keyName(i)}: ${number(mean[i], 3)} ± ${number(sd[i], 3)}`)));
    if (sd[i] > 0) svg.append(make("line", { x1: middle, x2: middle, y1: y(Math.max(0, mean[i] - sd[i])), y2: y(mean[i] + sd[i]), stroke: "var(--ink)", "stroke-width": Math.min(1.6, slot / 3) }));
    if (keys <= 24 || i % Math.ceil(keys / 16) === 0) svg.append(make("text", { x: middle, y: height - 4, "text-anchor": "middle" }, keys === tokens() && shown.kind === "image" ? tokenName(i, keys).replace("patch ", "") : `${i}`));
  }
  find("row").replaceChildren(svg);
  const visible = layer.keys[state.input][state.query], name = queryName(state.query);
  const order = [...mean.keys()].sort((a, b) => mean[b] - mean[a]).slice(0, 3);
  const at = (kind) => layer[kind][state.input][state.head][state.query];
  const tail = visible > 1 ? ` Entropy of a drawn row ${number(at("entropy"))}, of the mean row ${number(at("mean_entropy"))}, at most ${number(Math.log(visible))} nats (${visible} keys).` : "";
  find("said").textContent = visible === 0
    ? `Query ${name} is padding: it sees no key.`
    : `Query ${name} looks most at ${order.map((i) => `${keyName(i)} (${number(mean[i])} ± ${number(sd[i])})`).join(", ")}.${tail}`;
}

function drawPrediction() {
  const [mean, low, high] = ["mean", "low", "high"].map((key) => ofToken(data.prediction[key][state.input]));
  const truth = data.truth === null ? null : ofToken(data.truth[state.input]);
  const parent = find("prediction"), grid = make("div", { class: "classes" });
  const percent = (v) => `${(100 * Math.max(0, Math.min(1, v))).toFixed(2)}%`;
  if (isClasses) {
    const ids = data.prediction.classes ? ofToken(data.prediction.classes[state.input]) : [...mean.keys()];
    for (const c of mean.keys()) {
      if (ids[c] < 0) continue;
      const bar = make("div", { class: "bar", title: `${number(mean[c], 3)}, 90 % of draws from ${number(low[c], 3)} to ${number(high[c], 3)}` }, make("b", { style: `width:${percent(mean[c])}` }));
      if (high[c] - low[c] > 0.005) bar.append(make("i", { style: `left:${percent(low[c])};width:${percent(high[c] - low[c])}` }));
      grid.append(make("span", { class: ids[c] === truth ? "truth" : null }, className(ids[c])), bar, make("span", {}, mean[c].toFixed(2)));
    }
    const notes = [data.samples > 1 ? `Bars: probability averaged over ${data.samples} draws; lines: the central 90 % of the draws.` : "One draw: no spread."];
    if (truth !== null && truth >= 0) notes.push(`Bold: the label, ${className(truth)}.`);
    parent.replaceChildren(grid, make("p", { class: "note" }, notes.join(" ")));
  } else {
    const truths = truth === null ? [] : [truth].flat(), all = [...low, ...high, ...truths];
    const from = Math.min(...all), span = (Math.max(...all) - from) * 1.1 || 1, place = (v) => percent((v - from) / span + 0.04);
    mean.forEach((m, d) => {
      const bar = make("div", { class: "bar" }, make("i", { style: `left:${place(low[d])};width:${percent((high[d] - low[d]) / span)}` }), make("b", { style: `left:${place(m)};width:3px;opacity:1` }));
      if (truths.length) bar.append(make("em", { style: `left:${place(truths[d])}` }));
      grid.append(make("span", {}, mean.length > 1 ? `y${d + 1}` : "y"), bar, make("span", {}, number(m)));
    });
    parent.replaceChildren(grid, make("p", { class: "note" }, "Blue: the mean; line: the central 90 % interval" + (truths.length ? "; orange: what was observed." : ".")));
  }
  drawParts();
}

function drawParts() {
  let parts = ofToken(data.parts[state.input]);
  if (!isClasses) parts = [0, 1, 2].map((k) => parts.reduce((sum, each) => sum + each[k], 0));
  const total = parts[0] + parts[1] + parts[2], unit = isClasses ? "nats" : "";
  find("parts-heading").textContent = isClasses ? `Entropy ${number(total, 3)} nats` : `Variance ${number(total, 3)}`;
  const names = ["data", "rows", "weights"], stack = make("div", { class: "stack" }), list = make("dl", { class: "parts" });
  names.forEach((name, k) => {
    stack.append(make("b", { style: `width:${total > 0 ? (100 * parts[k]) / total : 0}%;background:var(--${name === "rows" ? "sd" : name})`, title: name }));
    list.append(make("dt", {}, make("span", { class: `key ${name}` }), name), make("dd", {}, `${parts[k] > 0 && parts[k] < 0.0005 ? "< 0.001" : number(parts[k], 3)} ${unit}`));
  });
  find("parts").replaceChildren(stack, list);
}

function drawHeads() {
  const parent = find("heads"), held = parent.contains(document.activeElement), kind = state.show;
  parent.replaceChildren();
  data.layers.forEach((layer, l) => {
    const [heads, queries, keys] = layer.shape, line = make("div", { class: "layer" }, make("span", {}, layer.name, make("br"), make("small", {}, layer.random ? "random rows" : "softmax rows")));
    const query = Math.min(state.query, queries - 1), grid = shown.kind === "image" && keys === tokens();
    for (let h = 0; h < heads; h++) {
      const values = grid ? rowOf(layer, kind, h, query) : matrix(layer, kind, h);
      const size = grid ? [shown.width / shown.patch, shown.height / shown.patch] : [keys, queries];
      const learned = Object.entries(layer.learned).map(([name, v]) => `${name} ${number(v.length > 1 ? v[h] : v[0], 1)}`);
      const said = relative(layer, h);
      const pressed = l === state.layer && h === state.head;
      const button = make("button", { "aria-pressed": pressed, "aria-label": `${layer.name}, head ${h}`, onclick: () => choose({ layer: l, head: h }) },
        painted(values, ...size, largest(values), kind), `head ${h}: ${said === null ? "–" : number(said)}`, ...learned.flatMap((text) => [make("br"), text]));
      line.append(button);
      if (pressed && held) setTimeout(() => button.focus());
    }
    parent.append(line);
  });
  find("heads-heading").textContent = shown.kind === "image" ? `Layers and heads: where query ${queryName(state.query)} looks` : "Layers and heads";
}

/* The mean entropy of a head's rows on this input, over the largest that they could have. */
function relative(layer, head) {
  let sum = 0, count = 0;
  layer.keys[state.input].forEach((visible, q) => {
    if (visible > 1) {
      sum += layer.entropy[state.input][head][q] / Math.log(visible);
      count++;
    }
  });
  return count ? sum / count : null;
}

function draw() {
  drawInputs();
  drawInput();
  drawMatrices();
  drawRow();
  drawPrediction();
  drawHeads();
}

const within = (value, count) => Math.max(0, Math.min(count - 1, Math.trunc(value) || 0));

function choose(changes, remember = true) {
  const focused = document.activeElement && document.activeElement.closest("#inputs");
  Object.assign(state, changes);
  state.input = within(state.input, inputs);
  state.layer = within(state.layer, data.layers.length);
  const [heads, queries] = layerNow().shape;
  state.head = within(state.head, heads);
  state.query = within(state.query, queries);
  if (state.show !== "sd") state.show = "mean";
  for (const radio of document.querySelectorAll('input[name="show"]')) radio.checked = radio.value === state.show;
  draw();
  if (focused) find("inputs").children[state.input].focus();
  if (remember) {
    try {
      history.replaceState(null, "", "#" + Object.entries(state).map(([key, value]) => `${key}=${value}`).join("&"));
    } catch {
      /* a page inside another has no address of its own */
    }
  }
}

/* A state can be linked: #input=3&layer=1&head=2&query=5&show=sd */
function fromAddress() {
  const found = {};
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) if (key in state) found[key] = value;
  choose(found, false);
}

steps(find("inputs"), 1, 1, (by) => choose({ input: (state.input + by + inputs) % inputs }));
steps(find("mean"), 1, 1, stepQuery);
for (const kind of ["mean", "sd"]) {
  find(kind).addEventListener("click", (event) => {
    const box = find(kind).getBoundingClientRect(), queries = layerNow().shape[1];
    choose({ query: Math.floor(((event.clientY - box.top) / box.height) * queries) });
  });
}
for (const radio of document.querySelectorAll('input[name="show"]')) radio.addEventListener("change", () => choose({ show: radio.value }));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
addEventListener("hashchange", fromAddress);
fromAddress();
