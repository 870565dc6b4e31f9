// Events and commands in words.

const hex = (value) => "0x" + value.toString(16);
// A CID as the log has it, and as the findings have it.
const cidOf = (cid) => `CID ${cid}` + (cid > 9 ? ` (${hex(cid)})` : "");
const counted = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many || one + "s"}`;
const opcodeOf = (sqid, code) => data.opcodes[sqid ? 1 : 0][code] || "opcode " + hex(code);
const lineOf = (number) => `${data.unit} ${number.toLocaleString("en")}`;

// A time, as fine as `step` of it needs.
function timeOf(us, step) {
  const [unit, name] = us < 1000 ? [1, "us"] : us < 1e6 ? [1e3, "ms"] : [1e6, "s"];
  const fine = step ? Math.max(0, Math.round(Math.log10(unit)) - Math.floor(Math.log10(step))) : [0, 2, 3][Math.round(Math.log10(unit) / 3)];
  return `${(us / unit).toFixed(fine)} ${name}`;
}

// Who does it, and what.
const SAID = {
  mmio_doorbell_sq: (v) => ["driver", `rings the tail of SQ ${v[0]}: ${v[1]}`],
  mmio_doorbell_cq: (v) => ["driver", `rings the head of CQ ${v[0]}: ${v[1]}`],
  update_sq_tail: (v) => ["device", `reads the shadow tail of SQ ${v[0]}: ${v[1]}`],
  update_cq_head: (v) => ["device", `reads the shadow head of CQ ${v[0]}: ${v[1]}`],
  sqe: (v) => ["device", `reads the entry in slot ${v[1]} of SQ ${v[0]}`],
  command: (v) => ["device", `fetches ${cidOf(v[0])}, ${opcodeOf(v[1], v[2])}, from SQ ${v[1]}`],
  finished: (v) => ["device", `finishes ${cidOf(v[0])}, for CQ ${v[1]}` + (v[2] ? `, with status ${hex(v[2])}` : "")],
  cqe: (v) => ["device", `posts ${cidOf(v[6])} to slot ${v[1]} of CQ ${v[0]}: SQHD ${v[4]}, phase ${v[7]}` +
    (v[8] ? `, status ${hex(v[8])}` : "")],
  msix: (v) => ["device", `raises interrupt vector ${v[0]}`],
  interrupt: () => ["device", "has posted, to a queue without MSI-X or without interrupts"],
  parked: (v) => ["device", `keeps the Asynchronous Event Request ${cidOf(v[0])} until there is an event`],
  create_sq: (v) => ["driver", `asks for SQ ${v[1]} of ${v[3] + 1} entries, on CQ ${v[2]}`],
  create_cq: (v) => ["driver", `asks for CQ ${v[1]} of ${v[3] + 1} entries, vector ${v[2]}`],
  del_sq: (v) => ["driver", `deletes SQ ${v[0]}`],
  del_cq: (v) => ["driver", `deletes CQ ${v[0]}`],
  started: () => ["device", "is enabled"],
  start_failed: () => ["device", "cannot be enabled"],
  stopped: () => ["driver", "resets the controller: all queues are gone"],
  reset: () => ["platform", "resets the function: all queues are gone"],
  cc: (v) => ["driver", `writes CC: ${hex(v[0])}`],
  csts: (v) => ["device", `says CSTS ${hex(v[0])}`],
  shutdown_set: () => ["driver", "asks for a shutdown"],
  shutdown_cleared: () => ["driver", "takes its request for a shutdown back"],
  err_cfs: () => ["device", "has failed (CSTS.CFS)"],
  dbbuf_config: () => ["driver", "asks for shadow doorbells"],
  fetched_to: (v) => ["device", `moves its head to ${v[0]}`],
  fetching_ends: (v) => ["device", v[1] && !v[0] ? "stops fetching: there are entries, and no request is free"
    : "stops fetching: the queue is empty"],
  pool_after_fetch: (v) => ["device", v[0] ? "has no free request after this fetch" : "has free requests after this fetch"],
  pool_at_post: (v) => ["device", v[0] ? "posts; no request is free" : "posts; now a request is free"],
  ub_db_wr_invalid_sq: (v) => ["driver", `rings the tail of SQ ${v[0]}, which is none`],
  ub_db_wr_invalid_cq: (v) => ["driver", `rings the head of CQ ${v[0]}, which is none`],
  ub_db_wr_invalid_sqtail: (v) => ["driver", `rings tail ${v[1]} of SQ ${v[0]}, which cannot be`],
  ub_db_wr_invalid_cqhead: (v) => ["driver", `rings head ${v[1]} of CQ ${v[0]}, which cannot be`],
};

function say(row) {
  const kind = kindOf(row);
  if (!kind) return ["", rows.kind[row] === -1 ? "tells nothing of a queue" : "is no line of the nvme device"];
  return SAID[kind] ? SAID[kind](rows.values[row]) : ["", kind.replaceAll("_", " ")];
}

const nameOf = (command) => (command.cid < 0 ? "?" : String(command.cid));

// What a command waits for that has not ended.
function missingOf(command) {
  const last = [...STAGES].reverse().find((stage) => command[stage]);
  return data.stages[last].replace(`${last}, `, "");
}

// A command with its stages, in a line.
function storyOf(command) {
  const what = command.cid < 0 ? counted(command.entries, "entry", "entries") + " of SQ " + command.sqid
    : `SQ ${command.sqid}, ${cidOf(command.cid)}, ${opcodeOf(command.sqid, command.opcode)}`;
  const stages = [...STAGES, "released"].filter((stage) => command[stage]).map((stage) => `${stage} ${command[stage]}`);
  if (command.gone) stages.push((isStuck(command) || isGivenUp(command) ? missingOf(command) + ", given up " : "forgotten ") + command.gone);
  if (command.end === Infinity) stages.push(missingOf(command));
  return `${what}: ${data.unit}s: ${stages.join(", ")}` + (command.status ? `; status ${hex(command.status)}` : "");
}
