// Going through the log: where we are, keys, buttons, and the list of lines.

const ROW = 19;
const walk = { at: 0, queue: 0, lastEvent: 0, dirty: false };

// Of the list only what is visible is in the page.
function drawLog() {
  const box = $("log"), from = Math.max(0, Math.floor(box.scrollTop / ROW) - 6);
  const to = Math.min(rows.count, from + Math.ceil(box.clientHeight / ROW) + 12);
  const list = $("rows");
  list.style.top = from * ROW + "px";
  list.replaceChildren();
  for (let row = from; row < to; row++) {
    const line = rows.number[row], item = make("div", "", make("b", "", line.toLocaleString("en")));
    const text = rows.text[row], at = rows.us && rows.kind[row] > -2 ? text.search(/(pci_)?nvme_/) : 0;
    item.append(make("span", "", text.slice(Math.max(at, 0))));
    item.classList.toggle("now", row === walk.at);
    item.classList.toggle("proof", marks.has(line));
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
  reveal();
  drawState();
  follow();
  redraw();
}

function step(direction, fits = isEvent) {
  for (let row = walk.at + direction; row >= 0 && row < rows.count; row += direction) {
    if (fits(row)) return go(row, { keep: fits !== isEvent });
  }
}

const ofQueue = (row) => isEvent(row) && rows.queue[row].includes(walk.queue);
const isMarked = (row) => marks.has(rows.number[row]);
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

// Where to begin: at the end of a hang, at what was found, or else where a queue is at work.
function begin() {
  const busiest = [...lanes].sort((a, b) => (b[0] > 0) - (a[0] > 0) || busy(b[1]) - busy(a[1]));
  walk.queue = data.stuck.length ? data.stuck[0] : busiest.length ? busiest[0][0] : 0;
  // Notes decide nothing.
  const lines = [...marks].filter(([line, label]) => line >= data.first && label !== "n").map(([line]) => line);
  const from = lines.length ? Math.min(...lines) : null;
  if (data.stuck.length || !lines.length) {
    walk.at = data.stuck.length ? walk.lastEvent : Math.max(0, rows.queue.findIndex((queues, row) => hasState(row) && queues.includes(walk.queue)));
  } else walk.at = rowOf(Math.max(...lines));
  const whole = time.end - time.begin;
  if (rows.count < 400) {
    const first = Math.min(...data.commands.map((values) => xOfLine(values[7] || values[8])), time.end);
    setView(first - (time.end - first) * 0.03, (time.end - first) * 1.03);
  } else if (from !== null) {
    const a = xOfLine(from), b = data.stuck.length ? time.end : xOfLine(Math.max(...lines)), margin = Math.max((b - a) * 0.15, whole / rows.count * 30);
    setView(a - margin, b - a + 2 * margin);
  } else setView(xOfRow(walk.at) - whole * 10 / rows.count, (whole * 200) / rows.count);
  if (!fromAddress()) go(walk.at, { keep: data.stuck.length > 0 });
}
const busy = (lane) => lane.begins.reduce((sum, begins) => sum + begins.length, 0);

async function main() {
  recolor();
  if (!("DecompressionStream" in window)) {
    $("broken").hidden = false;
    return;
  }
  load(await unpack());
  marks = new Map(data.marks.map(([line, label]) => [line, label]));
  if (!rows.count || !lanes.size) {
    $("broken").textContent = "No queue is seen in this log, so there is nothing to step through.";
    $("broken").hidden = false;
    document.body.dataset.ready = "yes";
    return;
  }
  $("app").hidden = false;
  for (let row = 0; row < rows.count; row++) if (isEvent(row)) walk.lastEvent = row;
  for (const sqid of lanes.keys()) $("queue").append(new Option(`SQ ${sqid}`, sqid));
  $("rows-room").style.height = rows.count * ROW + "px";
  $("jump-unit").textContent = data.unit;
  $("mark").disabled = !marks.size;
  $("axis").textContent = rows.us ? "across: time" : `across: ${data.unit}s`;
  for (const [line, label, text] of data.marks.filter(([line]) => line >= data.first)) {
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
