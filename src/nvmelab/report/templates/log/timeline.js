// The timeline: a lane for each queue, a bar for each command. Only what is visible is drawn, and
// never more bars than there are pixels.

const LEFT = 92, RIGHT = 14, TOP = 26, LANE = 84, BAR = 13;
const time = { view: [0, 1], begin: 0, end: 1, lanes: [], height: 0, colors: {} };
const COLORS = ["ink", "soft", "line", "panel", "bad", "mark", ...STAGES, ...STAGES.map((s) => s + "-ink")];

const xOfRow = (row) => (rows.us ? rows.us[row] : rows.number[row]);
const xOfLine = (line) => (rows.us ? rows.us[rowOf(line)] : line);

function layOut() {
  const first = Math.max(0, rank(rows.number, data.first - 1));
  time.begin = xOfRow(Math.min(first, rows.count - 1));
  time.end = Math.max(xOfRow(rows.count - 1), time.begin + 1);
  let y = 0;
  for (const [sqid, lane] of lanes) {
    const places = Math.max(1, lane.places.length);
    const high = Math.max(1, Math.min(BAR, Math.floor(LANE / places)));
    // Of more commands at once than there are rows of pixels, only some are drawn.
    const every = Math.ceil(places / LANE);
    const height = Math.max(16, Math.ceil(places / every) * high) + 7;
    time.lanes.push({ sqid, y, height, high, every, lane });
    y += height;
  }
  time.height = y;
  $("room").style.height = TOP + y + "px";
  const rest = Math.min(TOP + y + 2, 152);
  $("time").style.height = rest + "px";
  recolor();
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
  drawMarks(g, height);
}

function drawTicks(g, width, height) {
  const span = time.view[1] - time.view[0];
  let step = 10 ** Math.ceil(Math.log10((span / (width - LEFT)) * 90));
  for (const part of [5, 2]) if ((step / part / span) * (width - LEFT) >= 90 && (rows.us || step / part >= 1)) { step /= part; break; }
  step = Math.max(step, 1);
  g.font = "11px system-ui, sans-serif";
  const first = Math.ceil(time.view[0] / step);
  for (let i = 0; i < 40 && (first + i) * step <= time.view[1]; i++) {
    const value = (first + i) * step;
    g.fillStyle = time.colors.line;
    g.fillRect(time.px(value), 14, 1, height);
    g.fillStyle = time.colors.soft;
    const words = rows.us ? timeOf(Math.round(value)).replace(/\.0+ /, " ") : lineOf(value);
    if (time.px(value) < width - 70) g.fillText(words, time.px(value) + 3, 8);
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
  for (let place = 0; place < lane.lane.places.length; place += lane.every) {
    const commands = lane.lane.places[place];
    if (commands) drawPlace(g, lane, commands, lane.lane.begins[place], y + (place / lane.every) * lane.high, width);
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

// The last line at a place of the axis.
const lineAt = (value) => (rows.us ? rows.number[Math.max(0, rank(rows.us, value) - 1)] : value);

const isStuck = (command) => data.hung && command.end === Infinity && !command.parked && data.stuck.includes(command.sqid);

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
  if (isStuck(command)) {
    g.strokeStyle = time.colors.bad;
    g.lineWidth = high > 4 ? 2 : 1;
    g.strokeRect(from + 0.5, y + 0.5, to - from - 1, Math.max(high - 1, 1));
    if (high > 7) {
      g.fillStyle = time.colors.bad;
      g.beginPath();
      g.moveTo(to, y - 1);
      g.lineTo(to + 8, y + high / 2);
      g.lineTo(to, y + high + 1);
      g.fill();
    }
  }
  if (high < 9 || to - from < 30) return;
  let words = to - from < 80 ? nameOf(command) : `CID ${nameOf(command)}, ${opcodeOf(command.sqid, command.opcode)}`;
  if (command.cid < 0) words = counted(command.entries, "entry", "entries");
  if (isStuck(command)) words += ", " + missingOf(command);
  g.save();
  g.beginPath();
  g.rect(from, y, to - from, high);
  g.clip();
  g.font = "10.5px system-ui, sans-serif";
  const stage = stageAt(command, lineAt(time.value(from + 4))) || "fetched";
  g.fillStyle = time.colors[(stage === "parked" ? "fetched" : stage) + "-ink"];
  g.fillText(words, from + 4, y + high / 2 + 0.5);
  g.restore();
}

// Numbered flags for the lines of the proof, and where the steps are.
function drawMarks(g, height) {
  const now = xOfRow(walk.at);
  if (now >= time.view[0] && now <= time.view[1]) {
    g.fillStyle = time.colors.mark;
    g.fillRect(time.px(now) - 1, 12, 2, height);
  }
  g.font = "600 10px system-ui, sans-serif";
  g.textAlign = "center";
  let edge = -100;
  data.marks.forEach(([line, label]) => {
    const value = xOfLine(line);
    if (label === "n" || line < data.first || value < time.view[0] || value > time.view[1]) return;
    const x = time.px(value);
    g.fillStyle = time.colors.bad;
    g.fillRect(x - 0.5, 20, 1, height);
    if (x < edge + 15) return;
    edge = x;
    g.beginPath();
    g.arc(x, 19, 6.5, 0, 7);
    g.fill();
    g.fillStyle = time.colors.panel;
    g.fillText(label, x, 19.5);
  });
  g.textAlign = "left";
}

function setView(from, span) {
  const whole = time.end - time.begin;
  span = Math.min(whole, Math.max(span, rows.us ? 20 : 8));
  from = Math.min(Math.max(time.begin, from), time.end - span);
  time.view = [from, from + span];
  redraw();
}

const pan = (share) => setView(time.view[0] + share * (time.view[1] - time.view[0]), time.view[1] - time.view[0]);

function zoom(factor, around = xOfRow(walk.at)) {
  const [from, to] = time.view, fixed = Math.min(1, Math.max(0, (around - from) / (to - from)));
  const span = Math.min(time.end - time.begin, Math.max((to - from) * factor, rows.us ? 20 : 8));
  setView(around - span * fixed, span);
}

function follow() {
  const now = xOfRow(walk.at), [from, to] = time.view;
  if (now < from || now > to) setView(now - (to - from) / 2, to - from);
  const lane = time.lanes.find((l) => l.sqid === walk.queue), box = $("time");
  if (lane && (lane.y < box.scrollTop || lane.y + lane.height > box.scrollTop + box.clientHeight - TOP)) {
    box.scrollTop = Math.max(0, lane.y - 8);
  }
}

// What is under the pointer: a lane, and a command.
function under(event) {
  const box = $("canvas").getBoundingClientRect(), y = event.clientY - box.top - TOP + $("time").scrollTop;
  const lane = time.lanes.find((l) => y >= l.y && y < l.y + l.height);
  const value = time.value(event.clientX - box.left);
  if (!lane) return { value };
  const place = Math.floor((y - lane.y) / lane.high) * lane.every, line = lineAt(value);
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
    go(rows.us ? Math.max(0, rank(rows.us, value) - 1) : rowOf(Math.round(value)), { keep: Boolean(lane) });
  });
  $("time").addEventListener("scroll", redraw);
}
