"use strict";
// What the page is about: the lines, the queues over the lines, and the commands. All times are line
// numbers (or numbers of events, of a capture); the state at a line is found by looking, not by
// going through what was before.

const $ = (id) => document.getElementById(id);
let data, rows, lanes;

async function unpack() {
  const bytes = Uint8Array.from(atob($("data").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

function summed(deltas) {
  let sum = 0;
  return deltas.map((delta) => (sum += delta));
}

// How many of the sorted values are not above `value`.
function rank(values, value) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Where each line is on the axis of time. A log is quiet for seconds between bursts of microseconds:
// what is long beside most of the times between lines is shortened (by its logarithm), and each line
// takes a little, so that those of one microsecond can be told apart.
function layTimes() {
  const us = rows.us, waits = [];
  for (let row = 1; row < us.length; row++) if (us[row] > us[row - 1]) waits.push(us[row] - us[row - 1]);
  waits.sort((a, b) => a - b);
  const least = (waits[waits.length >> 1] || 4) / 4, long = 4 * (waits[Math.floor(waits.length * 0.9)] || 1);
  rows.place = [0];
  rows.least = least;
  rows.quiet = []; // the rows before what is much shorter than it was
  for (let row = 1; row < us.length; row++) {
    const wait = us[row] - us[row - 1];
    rows.place.push(rows.place[row - 1] + Math.max(least, wait <= long ? wait : long * (1 + Math.log10(wait / long) / 2)));
    if (wait > 6 * long) rows.quiet.push(row - 1);
  }
}

// A value of one sorted list where another one has `value`: straight lines between the rows.
function between(from, to, value) {
  const row = Math.max(0, rank(from, value) - 1);
  if (row + 1 >= from.length || value <= from[row]) return to[row];
  return to[row] + ((value - from[row]) / (from[row + 1] - from[row])) * (to[row + 1] - to[row]);
}
const timeAt = (place) => between(rows.place, rows.us, place);
const placeOf = (us) => between(rows.us, rows.place, us);

// A command, or entries that were never fetched. Stages that never came are 0.
const COMMAND = ["sqid", "place", "entries", "cid", "opcode", "status", "slot",
  "rung", "fetched", "finished", "posted", "released", "parked", "gone"];
const STAGES = ["rung", "fetched", "finished", "posted"];

function load(unpacked) {
  data = unpacked;
  rows = {
    number: summed(data.numbers), us: data.us && summed(data.us), kind: data.kind,
    queue: data.queue, values: data.values, text: data.text.split("\n"),
    count: data.numbers.length,
  };
  if (rows.us) layTimes();
  for (const fields of Object.values(data.queues)) {
    for (const field of Object.values(fields)) field[0] = summed(field[0]);
  }
  lanes = new Map(Object.keys(data.queues).map((sqid) => [Number(sqid), { places: [], parked: [], begins: [] }]));
  for (const values of data.commands) {
    const command = Object.fromEntries(COMMAND.map((name, i) => [name, values[i]]));
    command.begin = command.rung || command.fetched;
    command.end = command.gone || command.released || Infinity;
    const lane = lanes.get(command.sqid);
    if (command.place < 0) lane.parked.push(command);
    else {
      (lane.places[command.place] ??= []).push(command);
      (lane.begins[command.place] ??= []).push(command.begin);
    }
  }
}

const isEvent = (row) => rows.kind[row] >= 0;
const kindOf = (row) => (isEvent(row) ? data.kinds[rows.kind[row]] : "");
const hasState = (row) => rows.number[row] >= data.first;

// The row of a line, or the last one before it.
const rowOf = (line) => Math.max(0, rank(rows.number, line) - 1);

function valueAt(field, line) {
  const found = field ? rank(field[0], line) : 0;
  return found ? field[1][found - 1] : null;
}

function stageAt(command, line) {
  if (line >= command.end || line < command.begin) return null;
  if (command.parked && line >= command.parked && !(command.finished && line >= command.finished)) return "parked";
  for (const stage of ["posted", "finished", "fetched", "rung"]) {
    if (command[stage] && line >= command[stage]) return stage;
  }
  return null;
}

// The commands of a queue that are under way at a line: at most one in each place.
function commandsAt(sqid, line) {
  const lane = lanes.get(sqid), found = [];
  lane.places.forEach((commands, place) => {
    const command = commands[rank(lane.begins[place], line) - 1];
    if (command && stageAt(command, line)) found.push(command);
  });
  for (const command of lane.parked) if (stageAt(command, line)) found.push(command);
  return found;
}

// The state of a queue pair after a line, or null if there is none then.
function stateAt(sqid, line) {
  const fields = data.queues[sqid];
  if (!fields || !valueAt(fields.exists, line)) return null;
  const state = { sqid, line };
  for (const name of Object.keys(fields)) state[name] = valueAt(fields[name], line);
  state.ball = state.ball === null ? [] : data.balls[state.ball];
  const stages = { rung: [], fetched: [], finished: [], posted: [], parked: [] };
  for (const command of commandsAt(sqid, line)) stages[stageAt(command, line)].push(command);
  stages.rung.sort((a, b) => a.begin - b.begin || (a.fetched || Infinity) - (b.fetched || Infinity));
  for (const stage of ["fetched", "finished"]) stages[stage].sort((a, b) => a[stage] - b[stage]);
  stages.posted.sort((a, b) => a.posted - b.posted || a.finished - b.finished);
  return Object.assign(state, { commands: stages });
}

// What is posted to the completion queue of a state and not released, of all queues that use it.
function postedTo(state) {
  const found = [];
  for (const sqid of lanes.keys()) {
    const fields = data.queues[sqid];
    if (sqid !== state.sqid && valueAt(fields.cq, state.line) !== state.cq) continue;
    for (const command of commandsAt(sqid, state.line)) {
      if (stageAt(command, state.line) === "posted") found.push(command);
    }
  }
  return found.sort((a, b) => a.posted - b.posted || a.finished - b.finished);
}
