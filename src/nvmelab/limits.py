"""Every bound of the package, with its unit and its reason, in one place."""

from __future__ import annotations

# Guest memory and vfio-user.

DMA_REGIONS_MAX = 65_535
"""Memory regions one guest may map: the `max_dma_maps` that QEMU itself proposes."""

# vfio-user.

SOCKET_PATH_BYTES_MAX = 107
"""Longest path of a UNIX socket: sun_path holds 108 bytes with its terminating zero."""

MESSAGE_FDS_MAX = 16
"""Descriptors with one message: the `max_msg_fds` that we offer, and the most QEMU accepts."""

MESSAGE_BYTES_MAX = 8_192
"""Longest vfio-user message we accept. QEMU's longest is its VERSION, 214 bytes; an access of
REGION_ACCESS_BYTES_MAX needs 32 more than that. A longer one ends the connection."""

REGION_ACCESS_BYTES_MAX = 4_096
"""The `max_data_xfer_size` that we offer. The largest access that exists is one of the whole
configuration space, 256 bytes; a page leaves room."""

RECEIVE_BUFFER_BYTES = 65_536
"""One recvmsg of the vfio-user server: about 1,800 posted doorbells, and many times
MESSAGE_BYTES_MAX, so that the rest of a cut message always fits in front of the next read."""

REPLY_QUEUE_BYTES_MAX = 262_144
"""Replies kept for a peer that does not read them, beyond what its socket holds. QEMU reads from
a thread of its own and never gets there; whoever does is disconnected."""

VFIO_USER_TRANSFER_BYTES_MAX = 1 << 20
"""Bytes that a server may read or write in our client's memory with one message: the protocol's
default of `max_data_xfer_size`."""

VFIO_USER_MESSAGE_BYTES_MAX = VFIO_USER_TRANSFER_BYTES_MAX + 32
"""Longest message our client takes: DMA_WRITE of VFIO_USER_TRANSFER_BYTES_MAX."""

VFIO_USER_RECEIVE_BYTES = VFIO_USER_MESSAGE_BYTES_MAX + 65_536
"""Room of our client for what it has received: the rest of a message, and one read behind it."""

VFIO_USER_VERSION_BYTES_MAX = 4_096
"""Longest answer to VERSION: real ones have about 200 bytes. Bounds what JSON can cost us."""

VFIO_USER_REGION_INFO_BYTES_MAX = 4_096
"""Longest description of a region: room for 250 areas that can be mapped. Real ones have one."""

VFIO_USER_REPLY_S = 10.0
"""Seconds in which a server must have answered our client. QEMU gives up after 5."""

VFIO_USER_REST_S = 10.0
"""Seconds that our client waits for a server's device: longer than CAP.TO of usual devices (7.5 s
for QEMU's and ours), and than any command of a device that is well."""

VFIO_USER_SETTLE_S = 0.01
"""Seconds in which a device that was told something has probably done it: a hundred times what a
command takes."""

VFIO_USER_SPIN_S = 0.000_2
"""Seconds for which our client looks without a pause at the memory that it shares with a device: a
few times what a command takes. A server on the same processor must not wait longer."""

VFIO_USER_POLL_S = 0.002
"""Longest pause between two such looks after that: what does not raise an interrupt is noticed
later by so much, and looking 500 times a second costs 1 % of a processor."""

LOG_LINES_MAX = 10
"""Log lines of one kind in each LOG_WINDOW_S; the rest are counted. A hostile or broken peer can
cause one with each message."""

LOG_WINDOW_S = 10.0
"""Seconds after which LOG_LINES_MAX starts again."""

# Control sockets.

CONTROL_CLIENTS_MAX = 8
"""Peers of one control socket at a time: a few terminals and a script."""

CONTROL_REQUEST_BYTES_MAX = 256
"""Longest request: the one there is has 16."""

CONTROL_WINDOW_S = 0.1
"""Seconds in which one snapshot is made at most: nobody reads faster, and one of 64 queue pairs
takes up to a millisecond (`bench/top.py`)."""

CONTROL_WORK_MAX = 32
"""Accepts and reads in such a window: each takes some 50 us, so that peers take a few per cent of
the time from a guest at most (`bench/top.py`)."""

CONTROL_ANSWER_BYTES_MAX = 131_072
"""Longest answer: an empty socket takes that much at once with Linux's default buffers (208 KiB),
so that whoever reads what it asks for is never cut off."""

CONTROL_REPLY_S = 5.0
"""Seconds in which our client must have its answer. A server answers between two turns of its loop,
unless it is stopped or its disk hangs."""

SNAPSHOT_QUEUES_MAX = 128
"""Queue pairs of one snapshot; of more, those on which something waits come first, and the others
are counted. Keeps it below CONTROL_ANSWER_BYTES_MAX, and quickly made."""

SNAPSHOT_COMMANDS_MAX = 32
"""Kinds of commands whose totals are in one snapshot: a host can invent 512."""

SNAPSHOT_TEXT_MAX = 300
"""Characters of a text in a snapshot, such as the path of the image."""

# Storage.

IO_PIECES_MAX = 1024
"""Pieces of memory in one preadv or pwritev call: Linux's IOV_MAX. More take several calls."""

DIRECT_ALIGN_MIN = 512
"""Bytes: no disk transfers less than this past the page cache."""

DIRECT_ALIGN_MAX = 65_536
"""Bytes: the largest logical block that Linux supports. A request that is aligned to it and still
called invalid is refused for another reason."""

BOUNCE_BYTES = 1 << 20
"""Bytes of aligned memory through which direct I/O goes that is not aligned itself: large enough
that the system call costs little beside the copy, and at least two of the largest blocks."""

ZERO_PIECE_BYTES = 1 << 20
"""Bytes of zeroes written at once where the host cannot zero a range: a range may be gigabytes."""

# The controller.

FETCH_BURST = 64
"""Commands taken from one submission queue before the next one has its turn. Bounds how long a
busy queue, or a host that writes a doorbell without pause, can keep the others waiting."""
ABORTS_MAX = 4
"""Abort commands that may be outstanding (ACL): what Base 2.2 recommends, 5.1.13.2.1."""
ASYNC_EVENT_REQUESTS_MAX = 4
"""Asynchronous Event Requests that may be parked (AERL): what Base 2.2 recommends, 5.1.13.2.1."""
ASYNC_EVENTS_QUEUED_MAX = 64
"""Asynchronous events that wait for a request; more are dropped. Equal ones are kept once, so a
host cannot make the queue grow by repeating a mistake."""
LATENCIES_KEPT = 1024
"""Latencies of one opcode that are kept one by one before they are counted together."""
ERROR_LOG_ENTRIES = 16
"""Entries of the error information log (ELPE)."""

# A doorbell page that is mapped into the guest.

DOORBELL_IDLE_S = 0.001
"""Longest sleep between two looks at the page while a guest may ring. A store into the page wakes
nobody, so this bounds what a single command after a pause can be late by."""
DOORBELL_PAGE_QUEUES = 511
"""I/O queue pairs whose doorbells are on the one 4 KiB page; queue 0 takes the first two."""
DOORBELL_SPIN_S = 0.000_2
"""Seconds without a ring before the server sleeps at all: a few times what a guest under KVM needs
from an interrupt to its next command. Much more takes a processor from an emulated guest."""

# QEMU.

QEMU_PROBE_S = 20.0
"""Seconds that `qemu --version` or the help of one device may take. Normally well under one;
loading the binary and its modules from a cold or shared disk takes several."""

QEMU_GUEST_PROBE_S = 10.0
"""Seconds in which a guest of one boot sector must have answered: 0.3 on a healthy machine, 4 where
the hypervisor emulates every instruction."""

QEMU_KILLED_S = 5.0
"""Seconds to wait for a killed QEMU to be gone. One that hangs inside the kernel is left behind."""

QEMU_OPTION_SHOWN_MAX = 100
"""Characters of an option that an error message shows, so that the message stays one line."""

QEMU_SERIAL_MAX = 20
"""Characters of a serial number: the field of Identify Controller, and QEMU's own limit."""

QEMU_IO_QUEUE_PAIRS_MAX = 65_535
"""I/O queue pairs that `max_ioqpairs=` may ask for: queue ids have 16 bits."""

QEMU_MSIX_VECTORS_MAX = 2_048
"""MSI-X vectors that `msix_qsize=` may ask for: the table size field of PCI has 11 bits."""

QEMU_BLOCK_SIZE_MAX = 2 << 20
"""Bytes: the largest block size that QEMU's block layer gives to a device."""

QEMU_MESSAGE_BYTES_MAX = 4096
"""Bytes of QEMU's own messages that are read for an error message."""

QEMU_START_S = 30.0
"""Seconds in which a QEMU without a guest must answer on its qtest socket. Normally well under one;
loading the binary and its modules from a cold disk takes several."""

# Driving a device.

NBD_REQUEST_BYTES_MAX = 32 << 20
"""Bytes of one NBD request: what QEMU asks for at most."""

INPROC_TURNS_MAX = 100_000
"""Turns of a device in this process in one wait. Each takes all steps that are enabled, up to 64
commands of each queue: a device that is not at rest by then never will be."""

QTEST_REPLY_S = 20.0
"""Seconds for an answer of QEMU on its qtest socket. Normally 30 us; a server behind QEMU's
vfio-user client that answers nothing costs 5 s for each access."""

QTEST_PASS_NS = 1_000
"""Virtual time of one pass: twice the 500 ns after which QEMU's nvme before 7.1 looks at a
doorbell."""

QTEST_QUIET_PASSES = 16
"""Passes without activity after which a device has had its turn. Each is at least one turn of
QEMU's main loop; a command that the storage answers at once takes about four."""

QTEST_REST_S = 10.0
"""Seconds that a QEMU gets in a wait whose disks are not ours: nothing says when those are at rest.
As long as over vfio-user."""

QTEST_CLOCK_STEPS = (1_000_000, 1_000_000, 1_000_000_000, 1_000_000_000, 60_000_000_000)
"""Virtual time, in ns, that a device gets beyond that before it counts as at rest: throttled disks
and timers of seconds have had their turn."""

# Exploring.

SEARCH_STATES_MAX = 5_000_000
"""States that one search keeps: a system that is too large for it ends the search, at some
gigabytes of memory, and not the machine."""

SEARCH_ENTRIES_MAX = 1024
"""Entries of an explored queue: the memory of its commands is kept small, and a schedule of more
steps than this allows tells nobody anything."""

REPLAY_BYTES_MAX = 16 << 20
"""Bytes of a replay file: one of REPLAY_STEPS_MAX steps has 4 MB."""

REPLAY_STEPS_MAX = 100_000
"""Steps of a replay file: a run of 1,024 entries that was not shrunk has some 20,000."""

SAMPLE_STEPS_MAX = 1_000_000
"""Steps of one random run: each command takes about ten, so one of that many spins."""

CERTIFY_ENTRIES_MAX = 6
"""Entries up to which a sampled and shrunk run is searched for once more, breadth-first, to say
that none is shorter: seconds at most."""

# Devices with a schedule.

SCHEDULE_BURST = 64
"""Steps that are drawn in one turn of the loop: so long a message of the guest may have to wait."""

LATENCY_MAX_NS = 10_000_000_000
"""Longest latency that can be asked for: Linux gives a command up after 30 s."""

# Logs.

LOG_CHUNK_BYTES = 1 << 20
"""Bytes of a log that are read at once."""

LOG_LOOK_BYTES = 16 << 20
"""Bytes of a log that may come before the first line by which its kind is known: a long console."""

TRACE_FLIGHT_MAX = 1 << 20
"""Commands that are outstanding in a trace of Linux, and its queues: 500 queues of 2048 entries."""

TRACE_SKEW_US = 10_000
"""Microseconds by which two processors' clocks in such a trace may differ: Linux corrects them with
every timer interrupt, which comes 100 times a second or more often."""

TRACE_GIVEN_UP_US = 5_000_000
"""Microseconds after which a command that Linux has ended itself counts as one it waited for in
vain: it waits for 30 s unless it is told otherwise, and a reset that somebody asked for takes
commands of milliseconds."""

LOG_LINE_BYTES_MAX = 64 << 10
"""Longest line of a log. The longest that QEMU's nvme device prints has some 200 bytes."""

PAGE_LINES_MAX = 100_000
"""Lines of a log that its page has, the last ones: such a page opens in a second or two."""

PAGE_OTHERS_MAX = 10
"""Lines in a row that a page shows of something else than the nvme device: enough to see what it
was, such as the guest's complaint about a command that timed out."""

PAGE_KEPT_MAX = 1000
"""Older lines that a page has because they are evidence."""

PAGE_COMMANDS_MAX = 100_000
"""Commands in the timeline of a page that have ended, the last ones."""

PAGE_ALIVE_MAX = 262_144
"""Commands that a page shows as under way at once: four queues as deep as a queue can be."""

PAGE_LINE_BYTES_MAX = 300
"""Bytes of a line that a page shows: the longest of our own events has some 250."""

FINDINGS_MAX = 20
"""Findings of one rule that are kept with their evidence; further ones are counted."""

LIVE_EVENTS_KEPT = 20_000
"""Events of a guest that are kept to show what a verdict rests on: some 15 MB."""

LIVE_MARK_S = 0.05
"""Seconds between the times that are remembered of a guest's events."""

LIVE_MARKS_KEPT = 4096
"""How many of them are remembered at least: some minutes."""

LIVES_MAX = 8
"""Times that the controller was enabled which are remembered."""

TAKEN_BACK_MAX = 8
"""Resets and the like that are remembered with what they left undone."""

PROOF_LINES_MAX = 10
"""Lines of a log that a verdict quotes, of those that prove it."""

GAPS_MAX = 8
"""Places of a log that are remembered where lines are missing."""

CHECK_REST_S = 2.0
"""Seconds without an event after which commands that a guest leaves behind count as stuck."""

# Captures.

CAPTURE_VALUES = 1024
"""Values after which a record is written, though the turn of the loop goes on: some 4 KiB, so that
what a record costs beside its events is nothing."""

CAPTURE_VALUES_MAX = 2 * CAPTURE_VALUES
"""Values of a record that is read: CAPTURE_VALUES, and the event that went beyond."""

CAPTURE_TEXT_MAX = 4096
"""Characters of a text: the longest path of an image (PATH_MAX)."""

CAPTURE_TEXTS_MAX = 1024
"""Different texts that are remembered, and written once: names of commands, and of one image. Of
more, which no device of ours has, each is written in full."""

CAPTURE_RECORD_BYTES_MAX = 8 << 20
"""Longest record: CAPTURE_VALUES_MAX texts of CAPTURE_TEXT_MAX bytes, which no event comes near."""

CAPTURE_EVENTS_MAX = 1024
"""Kinds of events of a file's table. Ours has some 120, QEMU 11.1 has 224."""

CAPTURE_FIELDS_MAX = 64
"""Fields of one kind of event. The most that one has is 18."""
