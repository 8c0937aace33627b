"""Every limit of the front door, with the reason of each number.

What it decides: how much one client may make the node hold, parse or wait for.
What it never does: limit what a transaction may be; that is ledger/limits.py.
Source: architecture section 9; measurements in bench/.
"""

from ledger.limits import KIB, MIB

BODY_BYTES = 896 * KIB
"""The largest envelope (512 KiB) in base64, and room to name one a little larger; parsing this
much takes the loop 1.5 ms a step."""
JSON_DEPTH = 32
"""Arguments of contracts nest below ten; the walk and every decoder stay far from recursion."""
JSON_VALUES = 4_096
"""Four times a full `send_transactions`; a value costs up to 0.4 us of the loop: 2 ms."""
STEP_BYTES = 16 * KIB
"""Bodies larger than this are parsed in steps with looks at the loop between them."""
STEP_ITEMS = 48
"""Items of a long answer that are told and encoded between two looks at the loop: about 1 ms."""
STEP_IDS = 1_024
"""The same of bare ids: under 1 ms; a look at the loop costs as much as telling fifty."""
SEND_BYTES = 256 * KIB
"""What is copied or handed to the kernel at a time: 0.1 ms."""
BATCH_REQUESTS = 100
"""Amortises the cost of HTTP to nothing; one client holds a running place for a bounded time."""
ID_BYTES = 256
"""An id is echoed, so it must not amplify; a UUID has 38 bytes."""
ECHO_BYTES = 200
"""How much of a client's own words an error repeats."""
RESPONSE_BYTES = 4 * MIB
"""A full block at length or the largest envelope; copying this much takes the loop 1 ms."""
RUNNING_REQUESTS = 2
"""Runnable RPC tasks beside consensus. Each takes the loop for up to 2 ms between two looks of
consensus, which needs about fifteen for a block; more at a time would answer nobody sooner."""
READING_BODIES = 2
"""Connections that take the next 256 KiB of a body between two looks at the loop: 0.3 ms."""
WAITING_REQUESTS = 256
"""Beyond those that run: half a second of work. Who comes then hears `busy` at once."""
WAITING_REQUESTS_PER_ADDRESS = 64
"""One address cannot fill the line: the others wait behind 66 of its requests at most."""
LONG_POLLS = 128
"""Requests that wait for the chain: a block wakes them all at once, which takes about 2 ms."""
LONG_POLLS_PER_ADDRESS = 64
"""One address takes half of them."""
METRICS_AGE_MS = 250
"""The page of metrics is made no more often; it takes the loop about 1 ms."""
RETRY_AFTER_MS = 1_000
"""The hint to a client when the node is not ready: about one block."""

HEAD_BYTES = 16 * KIB
"""Request line and header fields; a browser behind three proxies sends 4 KiB."""
READ_BYTES = 64 * KIB
"""One read; a pipelining client can queue no more requests than fit here."""
BODY_READ_BYTES = 256 * KIB
"""One read of a body whose length is known: a call of 100 transactions of 1 KB comes in one."""
BODIES_BYTES = 64 * MIB
"""Bodies of all connections, received or being answered: 73 of the largest."""
CONNECTIONS = 512
"""Gateways and SDKs keep few connections; each costs about 10 KB and one descriptor."""
CONNECTIONS_PER_ADDRESS = 128
"""One address, or one IPv6 network of 64 bits, keeps at most a quarter of them."""
REFUSED_CONNECTIONS = 64
"""How many beyond CONNECTIONS hear why before they are closed; the rest just close."""
HEADER_TIMEOUT_MS = 10_000
"""From the first byte of a request to the end of its head: one packet on any line."""
BODY_TIMEOUT_MS = 30_000
"""From the end of the head to the end of the body: 896 KiB on a line of 0.2 Mbit/s."""
IDLE_TIMEOUT_MS = 60_000
"""Between requests: longer than the pauses of a polling client."""
SEND_TIMEOUT_MS = 20_000
"""For one response: whoever reads 4 MiB more slowly than 1.7 Mbit/s asks for less."""
LINGER_TIMEOUT_MS = 1_000
"""Time for a refused client to read why, before the reset that its unread bytes would cause."""
STOP_GRACE_MS = 2_000
"""What a stopping node gives the requests that are being answered."""
