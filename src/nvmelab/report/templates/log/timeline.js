// The timeline: a lane for each queue, a bar for each command. Only what is visible is drawn, and
// never more bars than there are pixels.

const LEFT = 92, RIGHT = 14, TOP = 26, LANE = 96, BAR = 13, HIGH = 152;
const time = { view: [0, 1], begin: 0, end: 1, lanes: [], height: 0, colors: {} };
const COLORS = ["ink", "soft", "line", "panel", "bad", "mark", "undecided", ...STAGES, ...STAGES.map((s) => s + "-ink")];

const xOfRow = (row) => (rows.us ? rows.place[row] : rows.number[row]);
const xOfLine = (line) => (rows.us ? rows.place[rowOf(line)] : line);
// The last row, and the last line, at a place of the axis.
const rowAt = (value) => Math.max(0, rank(rows.us ? rows.place : rows.number, value) - 1);
const lineAt = (value) => (rows.us ? rows.number[rowAt(value)] : value);

function layOut() {
  const first = Math.max(0, rank(rows.number, data.first - 1));
  time.begin = xOfRow(Math.min(first, rows.count - 1));
  time.end = Math.max(xOfRow(rows.count - 1), time.begin + 1);
  time.least = rows.us ? 8 * rows.least : 8;
  for (const [sqid, lane] of lanes) time.lanes.push({ sqid, lane, shown: [], high: BAR, every: 1, y: 0, height: 0 });
  const tallest = [...lanes.values()].reduce((sum, lane) => sum + heightOf(lane.places.length), 0);
  $("time").style.height = Math.min(TOP + tallest + 2, HIGH) + "px";
  recolor();
}

const barOf = (places) => Math.max(1, Math.min(BAR, Math.floor(LANE / Math.max(1, places))));
const heightOf = (places) => Math.max(16, Math.min(LANE, places * barOf(places))) + 7;

// The lanes have room for the bars that the view has: few of them are tall, and have words.
function layLanes() {
  const from = lineAt(time.view[0]), to = lineAt(time.view[1]);
  let y = 0;
  for (const lane of time.lanes) {
    const { places, begins } = lane.lane;
    lane.shown = [];
    places.forEach((commands, place) => {
      const last = commands[rank(begins[place], to) - 1];
      if (last && last.end >= from) lane.shown.push(place);
    });
    lane.high = barOf(lane.shown.length);
    // Of more commands at once than there are rows of pixels, only some are drawn.
    lane.every = Math.ceil(lane.shown.length / LANE) || 1;
    lane.y = y;
    lane.height = heightOf(lane.shown.length);
    y += lane.height;
  }
  time.height = y;
  $("room").style.height = TOP + y + "px";
}

// A canvas knows no variables of CSS.
function recolor() {
  const probe = document.createElement("i");
  document.body.append(probe);
  for (const name of COLORS) {
    probe.style.color = `var(--${name})`;
    time.colors[name] = getComputedStyle(probe).color;
  }
  probe.remove();
}

function drawTime() {
  const box = $("time"), canvas = $("canvas"), width = box.clientWidth, height = box.clientHeight;
  const ratio = window.devicePixelRatio || 1;
  canvas.style.width = width + "px";
  canvas.style.height = height + "px";
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const g = canvas.getContext("2d");
  g.scale(ratio, ratio);
  g.textBaseline = "middle";
  time.px = (value) => LEFT + ((value - time.view[0]) / (time.view[1] - time.view[0])) * (width - LEFT - RIGHT);
  time.value = (x) => time.view[0] + ((x - LEFT) / (width - LEFT - RIGHT)) * (time.view[1] - time.view[0]);
  time.bars = 0;
  drawTicks(g, width, height);
  const top = TOP - box.scrollTop;
  g.save();
  g.beginPath();
  g.rect(0, TOP - 12, width, height);
  g.clip();
  for (const lane of time.lanes) {
    if (lane.y + top > height || lane.y + lane.height + top < 0) continue;
    drawLane(g, lane, top, width);
  }
  g.restore();
  drawMarks(g, width, height);
}

// A round number that is not above `most`: 1, 2 or 5 and zeros.
function rounded(most) {
  const ten = 10 ** Math.floor(Math.log10(most));
  return Math.max(1, [5, 2, 1].find((part) => part * ten <= most) * ten);
}

function drawTicks(g, width, height) {
  const span = time.view[1] - time.view[0], right = width - RIGHT;
  const step = rounded(Math.max(1, (span / (width - LEFT)) * (rows.us ? 45 : 110)));
  g.font = "11px system-ui, sans-serif";
  if (rows.us) drawQuiet(g, width, height);
  let edge = -100;
  for (let x = LEFT; x < right - 40; x += 15) {
    // The first round value from there on.
    const value = Math.ceil((rows.us ? timeAt(time.value(x)) : time.value(x)) / step) * step;
    const at = time.px(rows.us ? placeOf(value) : value);
    if (at < edge + 92 || at < LEFT || at > right || (rows.us && isQuiet(rowAt(placeOf(value))))) continue;
    edge = at;
    g.fillStyle = time.colors.line;
    g.fillRect(at, 14, 1, height);
    g.fillStyle = time.colors.soft;
    if (at < width - 74) g.fillText(rows.us ? timeOf(value, step) : lineOf(value), at + 3, 8);
  }
}

const isQuiet = (row) => rows.quiet[rank(rows.quiet, row) - 1] === row;

// Stretches of time that are drawn much shorter than they were.
function drawQuiet(g, width, height) {
  const first = rank(rows.quiet, rowAt(time.view[0])) - 1;
  for (let i = Math.max(0, first); i < rows.quiet.length && rows.place[rows.quiet[i]] < time.view[1]; i++) {
    const row = rows.quiet[i], from = Math.max(LEFT, time.px(rows.place[row])), to = Math.min(width - RIGHT, time.px(rows.place[row + 1]));
    if (to - from < 8) continue;
    g.save();
    g.beginPath();
    g.rect(from, 14, to - from, height);
    g.clip();
    g.strokeStyle = time.colors.line;
    g.lineWidth = 1;
    g.beginPath();
    for (let x = from - height; x < to; x += 7) {
      g.moveTo(x, height);
      g.lineTo(x + height, 0);
    }
    g.stroke();
    g.restore();
    if (to - from < 64) continue;
    g.fillStyle = time.colors.soft;
    g.textAlign = "center";
    g.fillText(timeOf(rows.us[row + 1] - rows.us[row]) + " quiet", (from + to) / 2, height - 8);
    g.textAlign = "left";
  }
}

function drawLane(g, lane, top, width) {
  const y = lane.y + top, chosen = lane.sqid === walk.queue;
  g.fillStyle = time.colors.line;
  g.fillRect(0, y + lane.height - 3, width, 1);
  if (chosen) {
    g.fillStyle = time.colors.mark;
    g.fillRect(0, y, 3, lane.height - 5);
  }
  g.fillStyle = chosen ? time.colors.ink : time.colors.soft;
  g.font = (chosen ? "600 " : "") + "12px system-ui, sans-serif";
  const cq = valueAt(data.queues[lane.sqid].cq, Infinity);
  g.fillText(`SQ ${lane.sqid}, CQ ${cq}`, 9, y + 8);
  for (let i = 0; i < lane.shown.length; i += lane.every) {
    const place = lane.shown[i];
    drawPlace(g, lane, lane.lane.places[place], lane.lane.begins[place], y + (i / lane.every) * lane.high, width);
  }
}

function drawPlace(g, lane, commands, begins, y, width) {
  const last = width - RIGHT, fromLine = lineAt(time.view[0]);
  let i = Math.max(0, rank(begins, fromLine) - 1), edge = -1;
  while (i < commands.length) {
    const command = commands[i], from = time.px(xOfLine(command.begin));
    if (from > last) break;
    const to = command.end === Infinity ? last : time.px(xOfLine(command.end));
    if (to >= LEFT && to > edge) {
      drawBar(g, lane, command, y, Math.max(LEFT, from), Math.min(last, Math.max(to, from + 1)));
      edge = Math.floor(to) + 1;
      // What ends within the same pixel is not seen: on to the first that begins behind it.
      if (to - from < 1) i = Math.max(i, rank(begins, lineAt(time.value(edge))) - 2);
    }
    i += 1;
  }
}

// What the verdict is about: it waits at the end, or did when the host gave up.
function isStuck(command) {
  if (command.parked || command.released || !data.stuck.includes(command.sqid)) return false;
  return data.taken ? Boolean(stageAt(command, data.taken - 1)) : data.hung && command.end === Infinity;
}
// What never had a completion, though nobody may be to blame: a reset or a deletion ended it.
const isGivenUp = (command) => command.gone > 0 && !command.posted && !command.parked;

function drawBar(g, lane, command, y, from, to) {
  const high = lane.high > 3 ? lane.high - 2 : lane.high, last = to;
  time.bars += 1;
  STAGES.forEach((stage, i) => {
    if (!command[stage]) return;
    const next = STAGES.slice(i + 1).find((s) => command[s]);
    const a = Math.max(from, time.px(xOfLine(command[stage])));
    const b = next ? Math.min(last, time.px(xOfLine(command[next]))) : last;
    if (b < from || a > last || (b <= a && i < 3 && next)) return;
    g.fillStyle = time.colors[stage];
    g.fillRect(a, y, Math.max(b - a, 0.75), high);
  });
  const stuck = isStuck(command), ends = command.end < Infinity && to < time.px(time.view[1]);
  if (stuck || isGivenUp(command)) {
    g.strokeStyle = time.colors.bad;
    g.lineWidth = stuck && high > 7 ? 2 : 1;
    g.setLineDash(stuck ? [] : [4, 3]);
    g.strokeRect(from + 0.5, y + 0.5, to - from - 1, Math.max(high - 1, 1));
    g.setLineDash([]);
    if (high > 4) drawEnd(g, to, y, high, ends);
  }
  if (high < 9 || to - from < 30) return;
  g.font = "10.5px system-ui, sans-serif";
  let words = `CID ${nameOf(command)}, ${opcodeOf(command.sqid, command.opcode)}`;
  if (command.cid < 0) words = counted(command.entries, "entry", "entries");
  // A number that is cut is another number.
  else if (g.measureText(words).width > to - from - 6) words = nameOf(command);
  if (g.measureText(words).width > to - from - 6) return;
  if (stuck || isGivenUp(command)) words += ", " + missingOf(command) + (command.gone ? `: given up in ${lineOf(command.gone)}` : "");
  g.save();
  g.beginPath();
  g.rect(from, y, to - from, high);
  g.clip();
  const stage = stageAt(command, lineAt(time.value(from + 4))) || "fetched";
  g.fillStyle = time.colors[(stage === "parked" ? "fetched" : stage) + "-ink"];
  g.fillText(words, from + 4, y + high / 2 + 0.5);
  g.restore();
}

// How a bar ends that never did: it goes on, or is cut off by a reset.
function drawEnd(g, x, y, high, cut) {
  g.fillStyle = g.strokeStyle = time.colors.bad;
  g.beginPath();
  if (!cut) {
    g.moveTo(x, y - 1);
    g.lineTo(x + 8, y + high / 2);
    g.lineTo(x, y + high + 1);
    g.fill();
    return;
  }
  const middle = y + high / 2, size = Math.min(4, high / 2 - 1);
  g.lineWidth = 2;
  for (const way of [-1, 1]) {
    g.moveTo(x + 3, middle - way * size);
    g.lineTo(x + 3 + 2 * size, middle + way * size);
  }
  g.stroke();
}

// Numbered flags for the lines of the proof, and where the steps are. Flags that would lie on one
// another are one, with the first and the last number.
function drawMarks(g, width, height) {
  const now = time.px(xOfRow(walk.at));
  g.fillStyle = time.colors.mark;
  if (now >= LEFT && now <= width - RIGHT + 1) g.fillRect(now - 1, 12, 2, height);
  else drawAway(g, now < LEFT ? LEFT - 4 : width - 2, now < LEFT ? -1 : 1);
  g.font = "600 10px system-ui, sans-serif";
  g.textAlign = "center";
  const flags = [];
  for (const [line, label] of data.marks) {
    const value = xOfLine(line), x = time.px(value);
    if (label === "n" || line < data.first || value < time.view[0] || value > time.view[1]) continue;
    g.fillStyle = time.colors[label === "?" ? "undecided" : "bad"];
    g.globalAlpha = label === "." ? 0.35 : 1;
    g.fillRect(x - 0.5, 20, 1, height);
    g.globalAlpha = 1;
    if (label === ".") continue;
    const last = flags[flags.length - 1];
    if (last && x < last.to + 14) Object.assign(last, { to: x, labels: [...last.labels, label] });
    else flags.push({ from: x, to: x, labels: [label] });
  }
  for (const { from, to, labels } of flags) {
    const x = (from + to) / 2, wide = labels.length > 1 ? 13 + Math.max(9, to - from) : 0;
    const words = labels.length > 2 ? `${labels[0]}\u2013${labels[labels.length - 1]}` : labels.join(" ");
    g.fillStyle = time.colors[labels.every((label) => label === "?") ? "undecided" : "bad"];
    g.beginPath();
    if (wide) g.roundRect(x - wide / 2 - 3, 12.5, wide + 6, 13, 6.5);
    else g.arc(x, 19, 6.5, 0, 7);
    g.fill();
    g.fillStyle = time.colors.panel;
    g.fillText(words, x, 19.5);
  }
  g.textAlign = "left";
}

// The steps are outside of the view, on that side.
function drawAway(g, x, way) {
  g.beginPath();
  g.moveTo(x, 20);
  g.lineTo(x - 9 * way, 14.5);
  g.lineTo(x - 9 * way, 25.5);
  g.fill();
}

function setView(from, span) {
  const whole = time.end - time.begin;
  span = Math.min(whole, Math.max(span, time.least));
  from = Math.min(Math.max(time.begin, from), time.end - span);
  time.view = [from, from + span];
  layLanes();
  redraw();
}

const pan = (share) => setView(time.view[0] + share * (time.view[1] - time.view[0]), time.view[1] - time.view[0]);

function zoom(factor, around = xOfRow(walk.at)) {
  const [from, to] = time.view, fixed = Math.min(1, Math.max(0, (around - from) / (to - from)));
  const span = Math.min(time.end - time.begin, Math.max((to - from) * factor, time.least));
  setView(around - span * fixed, span);
}

// The steps stay in view, and so does the lane of the queue.
function follow() {
  const now = xOfRow(walk.at), [from, to] = time.view;
  if (now < from || now > to) setView(now - (to - from) / 2, to - from);
  followLane();
}

function followLane() {
  const lane = time.lanes.find((l) => l.sqid === walk.queue), box = $("time");
  if (lane && (lane.y < box.scrollTop || lane.y + lane.height > box.scrollTop + box.clientHeight - TOP)) {
    box.scrollTop = Math.max(0, Math.min(lane.y - 8, lane.y + lane.height - box.clientHeight + TOP));
  }
}

// What is under the pointer: a lane, and a command.
function under(event) {
  const box = $("canvas").getBoundingClientRect(), y = event.clientY - box.top - TOP + $("time").scrollTop;
  const lane = time.lanes.find((l) => y >= l.y && y < l.y + l.height);
  const value = time.value(event.clientX - box.left);
  if (!lane) return { value };
  const place = lane.shown[Math.floor((y - lane.y) / lane.high) * lane.every], line = lineAt(value);
  const commands = lane.lane.places[place];
  const command = commands && commands[rank(lane.lane.begins[place], line) - 1];
  return { value, lane, command: command && line < command.end ? command : null };
}

function listenToTime() {
  const canvas = $("canvas");
  let drag = null;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(Math.sign(event.deltaY || event.deltaX) * 0.1);
    else zoom(event.deltaY > 0 ? 1.25 : 0.8, under(event).value);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag && (drag.moved || Math.abs(drag.x - event.clientX) > 3)) {
      drag.moved = true;
      pan((drag.x - event.clientX) / (canvas.clientWidth - LEFT - RIGHT));
      drag.x = event.clientX;
      return;
    }
    const { command } = under(event);
    $("readout").textContent = command ? storyOf(command) : "";
  });
  canvas.addEventListener("pointerup", (event) => {
    const was = drag;
    drag = null;
    if (!was || was.moved) return;
    const { value, lane } = under(event);
    if (lane) choose(lane.sqid);
    go(rows.us ? rowAt(value) : rowOf(Math.round(value)), { keep: Boolean(lane) });
  });
  $("time").addEventListener("scroll", redraw);
}
