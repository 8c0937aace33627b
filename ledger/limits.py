"""Every size and count limit of the protocol, with the reason of each number.

Consensus parameters that an operator of a chain may choose live in genesis, not here.
"""

KIB = 1024
MIB = 1024 * KIB

PROTOCOL_VERSION = 2
"""Version of every signed format; a change of any byte layout raises it at a given height."""

TRANSACTION_BYTES = 64 * KIB
"""An index has about 480 bytes: room for 130 times as much, decoded in under 0.1 ms."""
ENVELOPE_BYTES = 512 * KIB
"""About 1,500 registrations under one signature; half a batch, so a batch always takes one."""
ENVELOPE_OPERATIONS = 2_000
"""Bounds the receipts one signature can cause: 2,000 receipts are about 200 KB."""
BATCH_BYTES = 1 * MIB
"""One frame at 10 Mbit/s takes under a second, so a slow hospital line still keeps up."""
BATCH_TRANSACTIONS = 1_000
"""Keeps the verification of one batch (1,000 signatures) under 50 ms of CPU."""
BATCH_NAMESPACES = 64
"""A batch header stays under 8 KiB."""
BATCH_HEADER_BYTES = 16 * KIB
"""64 namespaces of 80 bytes, twice over."""
BLOCK_BATCHES = 256
"""The list of digests in a proposal stays at 8 KiB."""
BLOCK_BYTES = 8 * MIB
"""The bodies a block may refer to; one second of 2-core execution at most."""
BLOCK_RECORD_BYTES = 64 * KIB
"""Header, last certificate and digests of one block, as a proposal carries them."""
HEADER_BYTES = 4 * KIB
"""About 450 bytes and at most 128 demotions of about 20 bytes."""
CERTIFICATE_BYTES = 16 * KIB
"""128 validators with 68 bytes each, and the fixed part."""
VALIDATORS = 128
"""More than any flat or hierarchical voting set that the design allows."""
FLAT_VALIDATORS = 15
"""Votes of 15 nodes reach everyone directly; more masters need the hierarchy."""
NODES = 1_000
"""Nodes that ever stood on the allow-list of a chain, as many as genesis may name."""
CHANGES = 16
"""Changes of one set: a whole flat network and one more; a record stays under 4 KiB."""
PROPOSALS = 64
"""Open proposals of a chain; a page that people can still read."""
PROPOSALS_PER_ORGANISATION = 4
"""So that no few organisations can keep the others from proposing."""
PROPOSAL_LIFETIME_MS = 7 * 86_400_000
"""A week: a vote that nobody joined by then has found no support."""
EVIDENCE_HEIGHTS = 10_000
"""How far back an equivocation can be reported: an hour and a half of blocks under load."""
EVIDENCE_BYTES = 1 * KIB
"""Two signed statements of about 130 bytes, and who reported them."""
RECEIPT_BYTES = 40 * KIB
"""Events and return value of one operation, with their own limits below."""
RETURN_BYTES = 8 * KIB
"""An answer of a write; bulk data belongs into a read."""
EVENTS_PER_OPERATION = 32
"""As many as a method reasonably announces; bounds the receipt."""
EVENT_BYTES = 1 * KIB
"""Events point at data, they do not carry it: 32 of them fit a receipt."""
SCRIPT_KEYS = 16
"""m-of-n over the departments of one institution; bounds verification to 16 signatures."""
SCRIPT_BYTES = 1 * KIB
"""16 keys of 34 bytes with their headers."""
REPLAY_WINDOW_MS = 600_000
"""How far `valid_until` may lie ahead of the block: ids of ten minutes are remembered."""
CLOCK_PRECISION_MS = 500
"""How far two correct clocks may differ; hospital servers with NTP keep 50 ms."""
MAP_KEY_BYTES = 256
"""A key is a hash or a short composite of names."""
MAP_VALUE_BYTES = 64 * KIB
"""As large as a transaction that could write it."""
LOG_ENTRY_BYTES = 4 * KIB
"""An entry refers to its transaction; ten times the largest that the first contract writes."""
HISTORY_PAGE = 100
"""Entries of one page of a query."""
PROOF_PATH = 63
"""Steps of a Merkle path in a tree of fewer than 2**63 leaves."""
