// The state of one queue pair after a line: the rings, what the device has, who must act, and what
// either side can know.

const SLOTS = 48;

function make(tag, cls, ...children) {
  const element = document.createElement(tag);
  if (cls) element.className = cls;
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

// A command in a slot: small slots have room for its number only.
const inSlot = (command, size) => (size > 6 || command.cid < 0 ? "" : "CID ") + nameOf(command);
const known = (value) => (value === null || value === undefined ? "not known" : value);

// The slots to draw: all of them, or those around the pointers.
function slotsOf(size, pointers) {
  if (size <= SLOTS) return [...Array(size).keys()];
  const near = new Set(), each = Math.floor(SLOTS / Math.max(1, pointers.length));
  for (const pointer of pointers) for (let i = -4; i < each - 4; i++) near.add((pointer + i + size) % size);
  return [...near].sort((a, b) => a - b);
}

function drawRing(id, size, pointers, slotAt) {
  const box = $(id), marks = pointers.filter(([, at]) => at !== null && at !== undefined);
  box.replaceChildren();
  box.classList.toggle("some", size > 6 && size <= 8);
  box.classList.toggle("many", size > 8);
  box.classList.toggle("crowd", size > 18);
  box.classList.toggle("huge", size > 999);
  let before = -1;
  for (const slot of slotsOf(size, marks.map(([, at]) => at))) {
    if (slot > before + 1) box.append(make("li", "gap", `${slot - before - 1} more`));
    before = slot;
    const { text, state, title } = slotAt(slot), here = marks.filter(([, at]) => at === slot).map(([name]) => name);
    const item = make("li", "slot " + state, make("i", "", slot), make("b", "", text), make("em", "", state));
    if (here.length) item.append(make("u", "", here.length > 1 ? "both" : here[0]));
    item.title = `slot ${slot}: ${title}` + (here.length ? `; the ${here.join(" and the ")} is here` : "");
    item.setAttribute("aria-label", item.title);
    box.append(item);
  }
  if (size > before + 1) box.append(make("li", "gap", `${size - before - 1} more`));
}

// The sizes of queues whose creation is not in the log are what their pointers need.
function drawSq(s) {
  const size = s.entries;
  $("sq-name").textContent = `SQ ${s.sqid}` + (size ? `, ${size} entries` : ", size not known");
  const untold = size && s.told !== null ? (s.head - s.told + size) % size : 0;
  $("sq-say").textContent = `tail ${known(s.tail)}, head ${known(s.head)}: ${s.rung} rung, not fetched`
    + (untold ? `, ${untold} taken and not told of` : "");
  if (!size || s.tail === null) return $("sq").replaceChildren(make("li", "soft", size ? "where its entries stand is not known yet"
    : "its size is not in this log (--sq-entries)"));
  const first = (s.tail - s.rung + size) % size, inside = new Map();
  for (const stage of ["fetched", "finished", "posted"]) {
    for (const command of s.commands[stage]) if (command.slot >= 0) inside.set(command.slot, [stage, command]);
  }
  drawRing("sq", size, [["head", s.head], ["tail", s.tail]], (slot) => {
    const place = (slot - first + size) % size;
    const waits = place < s.rung && (rungAt(s, place) || { cid: -1, rung: s.line });
    if (waits) return { text: inSlot(waits, size), state: "rung", title: `the device must fetch it; it waits since ${lineOf(waits.rung)}` };
    const [stage, command] = inside.get(slot) || [];
    if (stage === "fetched") {
      const title = `the device took ${cidOf(command.cid)} from here, and works on it`;
      return { text: inSlot(command, size), state: "fetched", title };
    }
    if (untold && (slot - s.told + size) % size < untold) {
      return { text: command ? inSlot(command, size) : "", state: "taken", title: "the device took it; no completion has told the driver yet" };
    }
    return { text: "", state: "free", title: "the driver may fill it" };
  });
}

// Entries that are rung, in order. Which command it is shows only once it is fetched.
function rungAt(s, place) {
  for (const command of s.commands.rung) {
    if (place < command.entries) return command;
    place -= command.entries;
  }
  return null;
}

function drawCq(s) {
  const size = s.cq_entries, posted = postedTo(s), tail = s.cq_tail ?? (size && s.cq_head !== null ? (s.cq_head + posted.length) % size : null);
  $("cq-name").textContent = `CQ ${s.cq}` + (size ? `, ${size} entries` : ", size not known");
  $("cq-say").textContent = `head ${known(s.cq_head)}: ${posted.length} posted, not released` + (s.phase === null ? "" : `; next phase ${s.phase}`);
  if (!size || s.cq_head === null) return $("cq").replaceChildren(make("li", "soft", posted.length ? "posted, but where is not known: "
    + posted.slice(0, 12).map(nameOf).join(", ") : "nothing is known to be posted"));
  drawRing("cq", size, [["head", s.cq_head], ["tail", tail]], (slot) => {
    const command = posted[(slot - s.cq_head + size) % size];
    return command ? { text: inSlot(command, size), state: "posted", title: `completion of ${cidOf(command.cid)}: the driver must take it, and release it by the head doorbell` }
      : { text: "", state: "free", title: "the device may post to it" };
  });
}

function drawDevice(s) {
  const { fetched, finished, parked } = s.commands, shown = [...fetched.map((c) => [c, "fetched"]), ...finished.map((c) => [c, "finished"]), ...parked.map((c) => [c, "parked"])];
  const few = shown.length <= 4;
  const chips = shown.slice(0, 10).map(([command, stage]) => {
    const what = `${nameOf(command)}, ${opcodeOf(command.sqid, command.opcode)}`;
    const chip = make("span", "chip " + stage, few ? `CID ${what}, ${stage}` : what);
    chip.title = storyOf(command);
    return chip;
  });
  if (shown.length > 10) chips.push(make("span", "soft", `and ${shown.length - 10} more`));
  $("flight").replaceChildren(...chips);
  $("flight").hidden = !chips.length;
  let say = shown.length ? `${fetched.length} not finished, ${finished.length} not posted` : "nothing";
  $("flight-say").title = "";
  if (s.entries && s.from_start) {
    say += `; ${Math.max(0, s.entries - s.taken)} of ${s.entries} requests free`;
    $("flight-say").title = "if it has one for each entry, as QEMU's has";
  }
  $("flight-say").textContent = say;
}

function drawBall(s, end) {
  const parts = s.ball.map(([state, parties, owed]) => {
    const count = state === "rung" ? s.rung : s.commands[state].reduce((sum, c) => sum + c.entries, 0);
    const waits = counted(count, state === "posted" ? "completion" : "command") + (count === 1 ? " is " : " are ") + data.stages[state];
    const party = parties.length === 1 ? parties[0] : "undecided";
    return make("p", "", make("b", party, parties.join(" or ")), `: ${waits}: ${owed}`);
  });
  const texts = valueAt(data.controller, s.line) || [];
  parts.push(...texts.map((text) => make("p", "", "The controller: " + text)));
  const still = end && data.stuck.length > 0 && (data.taken > 0 || data.hung);
  const then = `It stood still here, until the host gave up in ${lineOf(data.taken)}. Who had to act`;
  $("ball").className = "ball" + (still ? " end" : "");
  $("ball").replaceChildren(make("h2", "", !still ? "Who must act now" : data.taken ? then : "It stood still here. Who must act"),
    ...(parts.length ? parts : [make("p", "soft", "Nobody: no command is outstanding on this queue.")]));
}

function drawKnowledge(s) {
  const list = (id, items) => $(id).replaceChildren(...items.filter(Boolean).map((text) => make("li", "", text)));
  const { fetched, finished, posted } = s.commands;
  list("knows-driver", [
    `Its tail: ${known(s.tail)}; it waits for ${counted(s.rung + fetched.length + finished.length + posted.length, "command")}.`,
    s.told === null ? s.cq_tail === null ? "What completions told of the SQ head (SQHD) does not show here."
      : "No completion has told it of the SQ head (SQHD) yet."
      : `SQHD ${s.told} is the last that a completion said: what is before it is consumed.`,
    `It has released ${s.from_start ? counted(s.released, "completion") + ", up to" : "completions up to"} head ${known(s.cq_head)}.`,
    s.interrupt ? `Last interrupt: ${lineOf(s.interrupt)}.` : "No interrupt yet.",
    posted.length && `${counted(posted.length, "completion waits", "completions wait")} for it` + (s.owes_interrupt ? ", and no interrupt says so." : "."),
  ]);
  const room = s.cq_entries ? s.cq_entries - 1 - postedTo(s).length : null;
  list("knows-device", [
    `Doorbells: tail ${known(s.tail)}, head ${known(s.cq_head)}.`,
    `Its head of the SQ: ${known(s.head)}, so ${counted(s.rung, "entry", "entries")} to fetch.`,
    `${counted(fetched.length + finished.length, "command")} to complete` + (room === null ? "." : `, room for ${counted(Math.max(0, room), "completion")} in the CQ.`),
  ]);
}

// What is special about a line: why it is marked.
function drawWhy(line) {
  const [label, text] = marks.get(line) || ["", ""];
  $("why").hidden = !text;
  $("why").className = label === "?" ? "undecided" : label === "n" ? "soft" : "bad";
  $("why").textContent = text && `${/\d/.test(label) ? label + ": " : ""}${text[0].toUpperCase()}${text.slice(1)}.`;
}

function drawState() {
  const row = walk.at, line = rows.number[row], s = hasState(row) ? stateAt(walk.queue, line) : null, [who, text] = say(row);
  const when = rows.us ? `, ${timeOf(rows.us[row])}` : "";
  $("now").replaceChildren(make("span", "soft", `${lineOf(line)}${when}: `), make("b", who, who), who ? " " : "", text);
  drawWhy(line);
  $("line").textContent = rows.text[row];
  $("missing").hidden = Boolean(s);
  for (const part of document.querySelectorAll(".part")) part.hidden = !s;
  if (!s) {
    const name = `SQ ${walk.queue}`;
    $("missing").textContent = !hasState(row) ? "The state at this line is left out of this page." : `There is no ${name} at this point.`;
    return;
  }
  drawSq(s);
  drawCq(s);
  drawDevice(s);
  drawBall(s, data.taken ? row >= walk.end && line < data.taken : row >= walk.end);
  drawKnowledge(s);
}
