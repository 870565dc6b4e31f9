// Going through the log: where we are, keys, buttons, and the list of lines.

const ROW = 19;
const walk = { at: 0, queue: 0, end: 0, lastEvent: 0, dirty: false };

// Of the list only what is visible is in the page.
function drawLog() {
  const box = $("log"), from = Math.max(0, Math.floor(box.scrollTop / ROW) - 6);
  const to = Math.min(rows.count, from + Math.ceil(box.clientHeight / ROW) + 12);
  const list = $("rows");
  list.style.top = from * ROW + "px";
  list.replaceChildren();
  for (let row = from; row < to; row++) {
    const line = rows.number[row], item = make("div", "", make("b", "", line.toLocaleString("en")));
    const text = rows.text[row], [label] = marks.get(line) || [""];
    item.append(make("span", "", eventOf(text, rows.kind[row])));
    item.classList.toggle("now", row === walk.at);
    item.classList.toggle("proof", label !== "" && label !== "?" && label !== "n");
    item.classList.toggle("missing", label === "?");
    if (label && label !== ".") item.prepend(make("i", "", label));
    item.classList.toggle("unused", rows.kind[row] === -1);
    item.classList.toggle("foreign", rows.kind[row] === -2);
    item.classList.toggle("other", rows.kind[row] >= 0 && rows.queue[row].length > 0 && !rows.queue[row].includes(walk.queue));
    item.classList.toggle("skip", row > 0 && line !== rows.number[row - 1] + 1);
    if (row === walk.at) item.setAttribute("aria-current", "true");
    item.title = text;
    item.onclick = () => go(row);
    list.append(item);
  }
}

// A line without what all of them have: the whole one is shown below.
function eventOf(text, kind) {
  if (kind === -2) return text;
  return text.slice(Math.max(0, text.search(/(pci_)?nvme_/))).replace(/^pci_nvme_/, "");
}

function reveal() {
  const box = $("log"), top = walk.at * ROW;
  if (top < box.scrollTop + 2 * ROW || top > box.scrollTop + box.clientHeight - 3 * ROW) {
    box.scrollTop = Math.max(0, top - box.clientHeight / 2);
  }
}

function redraw() {
  if (walk.dirty) return;
  walk.dirty = true;
  requestAnimationFrame(draw);
}

function draw() {
  walk.dirty = false;
  drawLog();
  drawTime();
}

// Go to a row; its queue is chosen, unless `keep` says otherwise.
function go(row, { keep = false } = {}) {
  walk.at = Math.max(0, Math.min(rows.count - 1, row));
  const queues = rows.queue[walk.at];
  if (!keep && queues.length && !queues.includes(walk.queue)) walk.queue = queues[0];
  $("queue").value = walk.queue;
  $("slide").value = walk.at;
  $("slide").setAttribute("aria-valuetext", `${lineOf(rows.number[walk.at])}: ${say(walk.at).join(" ")}`);
  history.replaceState(null, "", "#line=" + rows.number[walk.at]);
  drawState();
  reveal();
  follow();
  redraw();
}

function step(direction, fits = isEvent) {
  for (let row = walk.at + direction; row >= 0 && row < rows.count; row += direction) {
    if (fits(row)) return go(row, { keep: fits !== isEvent });
  }
}

const ofQueue = (row) => isEvent(row) && rows.queue[row].includes(walk.queue);
const isMarked = (row) => (marks.get(rows.number[row]) || ["."])[0] !== ".";
const firstEvent = () => { walk.at = -1; step(1); };
const lastEvent = () => { walk.at = rows.count; step(-1); };

// The next line that the verdict rests on, and from the last one to the first.
function nextMark(direction) {
  const before = walk.at;
  step(direction, isMarked);
  if (walk.at === before && marks.size) {
    walk.at = direction > 0 ? -1 : rows.count;
    step(direction, isMarked);
  }
  const queues = rows.queue[walk.at];
  if (queues.length && !queues.includes(walk.queue)) choose(queues[0]);
}

function choose(sqid) {
  walk.queue = Number(sqid);
  $("queue").value = walk.queue;
  drawState();
  follow();
  redraw();
}

function nextQueue() {
  const ids = [...lanes.keys()];
  choose(ids[(ids.indexOf(walk.queue) + 1) % ids.length]);
}

function toLine(text) {
  const line = Number(text.replaceAll(",", ""));
  if (Number.isFinite(line) && text.trim()) go(rowOf(line));
}

function fromAddress() {
  const found = /^#line=(\d+)$/.exec(location.hash);
  if (found) go(rowOf(Number(found[1])));
  return Boolean(found);
}

// Dark or light, as the system has it until somebody chooses.
const isDark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
function recolored() {
  $("theme").textContent = isDark() ? "Light" : "Dark";
  recolor();
  redraw();
}
function flip() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  recolored();
}

const ACTS = {
  ArrowRight: () => step(1), ArrowDown: () => step(1), ArrowLeft: () => step(-1), ArrowUp: () => step(-1),
  "]": () => step(1, ofQueue), "[": () => step(-1, ofQueue), Home: firstEvent, End: lastEvent,
  PageDown: () => go(walk.at + 20, { keep: true }), PageUp: () => go(walk.at - 20, { keep: true }),
  p: () => nextMark(1), P: () => nextMark(-1), q: nextQueue, "/": () => openJump(),
  "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => setView(time.begin, Infinity),
  ",": () => pan(-0.25), ".": () => pan(0.25), t: flip, "?": () => $("keys").showModal(),
};

function openJump() {
  $("jump-line").value = "";
  $("jump").showModal();
  $("jump-line").focus();
}

function listen() {
  const buttons = { first: "Home", last: "End", prev: "ArrowLeft", next: "ArrowRight", qprev: "[", qnext: "]",
    mark: "p", goto: "/", theme: "t", help: "?", zoomin: "+", zoomout: "-", whole: "0" };
  for (const [id, key] of Object.entries(buttons)) $(id).onclick = () => ACTS[key]();
  $("slide").max = rows.count - 1;
  $("slide").oninput = (event) => go(Number(event.target.value));
  $("queue").onchange = (event) => choose(event.target.value);
  $("log").onscroll = redraw;
  $("jump").addEventListener("close", () => { if ($("jump").returnValue === "go") toLine($("jump-line").value); });
  addEventListener("resize", redraw);
  addEventListener("hashchange", fromAddress);
  addEventListener("beforeprint", () => { recolor(); draw(); });
  addEventListener("afterprint", recolored);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolored);
  // A link to the line where we are does not change the address.
  document.querySelector("header").addEventListener("click", (event) => { if (event.target.hash === location.hash) fromAddress(); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.matches("select, input:not([type=range])")) return;
    const act = ACTS[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  listenToTime();
}

let marks = new Map();

// Where to begin: at the end of a hang, at what was found, or else where a queue was at work last.
function begin() {
  const numbered = flaggedBy((label) => /\d/.test(label));
  // What broke a rule before, if it was not long before.
  const near = flaggedBy((label) => label === "!").filter((line) => !numbered.length || rowOf(numbered[0]) - rowOf(line) < 300);
  const flagged = data.stuck.length ? [...numbered, ...near.slice(0, 1)] : flaggedBy((label) => (data.open_queue ? ".x".includes(label) : label !== "n" && label !== "."));
  walk.end = data.taken ? eventBefore(rowOf(data.taken) - (rows.number[rowOf(data.taken)] === data.taken)) : walk.lastEvent;
  if (data.stuck.length) {
    walk.queue = data.stuck[0];
    walk.at = walk.end;
    showEvidence(flagged, data.taken ? xOfLine(data.taken) : time.end);
  } else if (data.open) {
    walk.at = rowOf(data.open);
    showEvidence(flagged, 0);
    if (data.open_queue) walk.queue = data.open_queue;
  } else showLastWork();
  if (fromAddress()) return;
  const view = time.view;
  go(walk.at, { keep: data.stuck.length > 0 || data.open_queue > 0 });
  // The steps may be outside of it, where that is far from the evidence.
  if (data.stuck.length) setView(view[0], view[1] - view[0]);
  followLane();
}

const flaggedBy = (fits) => [...marks].filter(([line, [label]]) => line >= data.first && fits(label)).map(([line]) => line);

function eventBefore(row) {
  while (row > 0 && !isEvent(row)) row--;
  return row;
}

// From the first of those lines on to `end`, if what comes after the last one is not so much that
// they would lie on one another; else a part of that.
function showEvidence(lines, end) {
  const at = xOfRow(walk.at), near = (row) => xOfRow(Math.max(0, Math.min(rows.count - 1, row)));
  let from = lines.length ? Math.min(...lines.map(xOfLine)) : at, to = lines.length ? Math.max(...lines.map(xOfLine)) : at;
  if (!data.stuck.length && (at < from || at > to || rowAt(to) - rowAt(from) > 1000)) from = to = at;
  const last = rowAt(to), reach = Math.max(to - from, near(last + 60) - to);
  to = Math.max(to, Math.min(end, to + 2 * reach));
  from -= Math.max((to - from) * 0.08, from - near(rowAt(from) - 12));
  if (!data.stuck.length) to = near(Math.max(last, walk.at) + 8);
  const margin = (to - from) * 0.02;
  setView(from, to - from + margin);
}

// The last commands of the I/O queues, so few that their bars can be seen.
function showLastWork() {
  const work = new Set(["mmio_doorbell_sq", "mmio_doorbell_cq", "update_sq_tail", "update_cq_head", "command", "finished", "cqe"]);
  const ofIo = (row) => work.has(kindOf(row)) && hasState(row) && rows.queue[row][0] > 0;
  let row = rows.count - 1;
  while (row >= 0 && !ofIo(row)) row--;
  walk.at = row < 0 ? walk.lastEvent : row;
  walk.queue = row < 0 ? Math.max(0, ...lanes.keys()) : rows.queue[row][0];
  const line = rows.number[walk.at], all = [...lanes].filter(([sqid]) => sqid > 0 || row < 0).flatMap(([, lane]) => lane.begins.flat()).filter((begin) => begin <= line).sort((a, b) => a - b);
  const from = all.length ? xOfLine(all[Math.max(0, all.length - 16)]) : xOfRow(Math.max(0, walk.at - 60));
  const margin = (xOfRow(walk.at) - from) * 0.04;
  setView(from - margin, xOfRow(walk.at) - from + 2 * margin);
}
async function main() {
  recolor();
  if (!("DecompressionStream" in window)) {
    $("broken").hidden = false;
    return;
  }
  load(await unpack());
  marks = new Map(data.marks.map(([line, label, text]) => [line, [label, text]]));
  if (!rows.count || !lanes.size) {
    $("broken").textContent = "No queue is seen in this log, so there is nothing to step through.";
    $("broken").hidden = false;
    document.body.dataset.ready = "yes";
    return;
  }
  $("app").hidden = false;
  for (let row = 0; row < rows.count; row++) if (isEvent(row)) walk.lastEvent = row;
  for (const sqid of lanes.keys()) $("queue").append(new Option(`SQ ${sqid}`, sqid));
  $("log").style.setProperty("--digits", 3 + rows.number[rows.count - 1].toLocaleString("en").length + "ch");
  $("rows-room").style.height = rows.count * ROW + "px";
  $("jump-unit").textContent = data.unit;
  $("mark").disabled = !marks.size;
  $("axis").textContent = !rows.us ? `across: ${data.unit}s` : "across: time" + (rows.quiet.length ? "; hatched: quiet, drawn shorter" : "");
  $("gaps").hidden = !data.marks.some(([, label]) => label === "?");
  for (const [line, label, text] of data.marks.filter(([line, label]) => line >= data.first && label !== ".")) {
    const button = make("button", "link", `${label} ${lineOf(line)}`);
    button.onclick = () => { $("jump").close(); go(rowOf(line)); };
    $("jump-marks").append(make("li", "", button, " " + text));
  }
  listen();
  layOut();
  recolored();
  begin();
  document.body.dataset.ready = "yes";
}
main();
