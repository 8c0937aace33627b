"""Limits of one running node; they bound its memory and never decide what is valid on chain."""

from ledger.limits import KIB, MIB

POOL_TRANSACTIONS = 50_000
"""Ten seconds of 5,000 transactions a second: a longer queue only adds waiting."""
POOL_BYTES = 64 * MIB
"""At most the memory of the pool's transactions."""
POOL_TRANSACTIONS_PER_SENDER = 20_000
"""One sender may fill less than half of the pool."""
POOL_BYTES_PER_SENDER = 24 * MIB
"""The same in bytes: large transactions must not do what many cannot."""
POOL_TRANSACTIONS_PER_NAMESPACE = 25_000
"""Half of the pool: one busy module at one level leaves room for all others."""
POOL_BYTES_PER_NAMESPACE = 32 * MIB
"""The same in bytes."""
POOL_RESERVE_TRANSACTIONS = 5_000
"""A tenth only for the system module: membership, evidence and revocation pass a full pool."""
POOL_RESERVE_BYTES = 6 * MIB
"""The same in bytes."""
POOL_SYSTEM_TRANSACTIONS_PER_SENDER = 500
"""Pending ones of one account; ten accounts together cannot use up the reserve."""
POOL_RETRY_MS = 500
"""The hint of a pool without room: three blocks."""
SLICE_EXPIRY = 5_000
"""Transactions whose expiry is looked at between two looks at the event loop: about 1 ms."""
BACKLOG_TRANSACTIONS = 50_000
"""Batched and not executed: ten blocks. Beyond it this node admits no more of its own clients."""
BACKLOG_BYTES = 64 * MIB
"""The same in bytes; half of PENDING_BATCH_BYTES, so that batches of peers are still kept."""
BACKLOG_UNVERIFIED_BYTES = 16 * MIB
"""Batches of peers that wait for verification: half of VERIFY_QUEUE_BYTES."""
BACKLOG_RETRY_MS = 1_000
"""The hint of a node that is behind: several blocks."""
FAILED_SIGNATURES = 64
"""Bad signatures that one client address has free; beyond it they cost it time."""
FAILED_SIGNATURES_PER_S = 20
"""How many of them are forgiven each second: 1 ms of CPU for each address."""
FAILED_SIGNATURES_ALL = 2_000
"""Of all addresses together: a tenth of a second of CPU; then each has only one free."""
FAILED_SIGNATURES_ALL_PER_S = 2_000
"""How many of them are forgiven each second."""
FAILING_CLIENTS = 4_096
"""Addresses remembered for it; more than there are connections. About 1 MB."""
PENDING_BATCH_BYTES = 128 * MIB
"""Batches that no block refers to yet; what does not fit is pulled when a proposal needs it."""
VERIFY_QUEUE_BYTES = 32 * MIB
"""Batches of peers waiting for verification; beyond it their links are read no further."""
BATCH_DELAY_MS = 10
"""How long the first transaction after a pause waits for company."""
BATCH_INTERVAL_MS = 150
"""Under load a batch is made this often: as often as a block is due."""
BATCH_TARGET_TRANSACTIONS = 250
"""A batch is cut early at this size: 250 signatures are about 10 ms of CPU for a receiver."""
BATCH_TARGET_BYTES = 512 * KIB
"""Half the protocol's limit, so that an envelope never meets a full batch."""
BLOCK_TRANSACTIONS = 5_000
"""What a proposer puts into one block: about 150 ms of execution."""
BLOCK_OPERATIONS = 20_000
"""The same bound for envelopes: about 300 ms of execution."""
SLICE_SIGNATURES = 32
"""Signatures verified between two looks at the event loop: 1 to 1.5 ms, by the machine's V."""
SLICE_DECODED = 128
"""Transactions of a batch parsed between two looks at the event loop: about 1 ms."""
SLICE_BYTES = 512 * KIB
"""The same in bytes: hashing and comparing so much takes about 1 ms; the largest transaction."""
SLICE_RECEIPTS = 500
"""Receipts decoded for one answer between two looks at the event loop: about 0.5 ms."""
SLICE_TRANSACTIONS = 100
"""Executions between two looks at the event loop: about 1.5 ms."""
VERIFIED_CACHE = 32_768
"""Leaves of checked transactions, twice at most: 6 MB; a client's resend is then free."""
SYNC_BLOCKS = 64
"""Blocks of one answer, also bounded by SYNC_BYTES."""
SYNC_BYTES = 512 * KIB
"""Records of one answer: 0.4 s of a 10 Mbit/s line, so that votes are not kept waiting."""
SYNC_BATCHES = 32
"""Bodies that a node in sync asks for before it executes: 32 MiB at most, or one block's."""
SNAPSHOT_PART_BYTES = 256 * KIB
"""One frame of a snapshot: 0.2 s of a 10 Mbit/s line, as long as a vote may wait."""
SNAPSHOT_INTERVAL = 1_000
"""Heights between two snapshots that all nodes serve; who joins executes at most so many blocks,
and those that were decided while it joined."""
SNAPSHOT_VIEWS = 3
"""Snapshots held at once: what is overwritten while they are held stays on disk."""
SNAPSHOT_AGE_MS = 3_600_000
"""How long one is held at most: ten million keys take seven minutes."""
SNAPSHOT_IN_USE_MS = 60_000
"""One that was asked for within this time is let go last."""
SNAPSHOT_PULLS_PER_PEER = 4
"""Items asked of one peer at a time; a quarter of what may wait for a peer."""
SNAPSHOT_PULLS = 16
"""Items asked for at a time of all peers."""
SNAPSHOT_TIMEOUT_MS = 10_000
"""After this an item is asked of another peer: four parts over a slow line, and a busy server."""
SNAPSHOT_CHOICE_MS = 3_000
"""How long a node that joins hears offers after the first good one."""
SNAPSHOT_RETRY_MS = 1_000
"""How often it asks again when nobody can serve."""
PRUNED_HEIGHTS = 32
"""Blocks that are pruned in one write: about 2 ms."""
PRUNE_TICK_MS = 1_000
"""How often a node that prunes looks: 32 blocks a second are three times what a chain decides."""
PRUNE_LOOK_BLOCKS = 8_192
"""Of so many of the oldest blocks the bodies are looked at before older ones are deleted: a batch
waits at most 600 seconds for its block, which are 4,000 blocks under load."""
OPEN_REQUESTS = 1_024
"""Questions to one peer that are remembered, so that a late answer is told from an unasked one."""
PULLS_PER_PEER = 2
"""Batches asked of one peer at a time: 2 MiB, 1.7 s of a 10 Mbit/s line."""
SYNC_PULLS_PER_PEER = 8
"""The same in sync: 8 in flight fill a 100 Mbit/s line at 100 ms of round trip."""
STREAM_QUIET_MS = 1_000
"""While batches come in more often than this, a missing one is probably on its way: 1 MiB takes
0.9 s at 10 Mbit/s. Asking for it as well would send everything twice over a slow line."""
STREAM_PATIENCE_MS = 5_000
"""After this it is asked for all the same."""
STATUS_RATE = 4
"""Statuses of one peer answered in a second; a correct one sends one, and one for each peer that
wakes it. What is beyond is read for its claim and not answered."""
STATUS_BURST = 16
"""As many at once: a link that was clogged."""
REBROADCAST_BYTES = 1 * MIB
"""What a node offers again every REBROADCAST_MS of batches that wait for a block."""
REBROADCAST_MS = 2_000
"""A batch normally stands in a block within 200 ms; after 2 s somebody may have missed it."""
CANDIDATES_PER_SENDER = 8
"""Proposed blocks kept of one validator: it proposes once in n rounds, so for 8 n rounds."""
CANDIDATE_ROUNDS = 4_096
"""Rounds of a height in which some known block was proposed; beyond it they count as untimely."""
BUILD_RETRY_MS = 50
"""When no waiting batch may stand in a block yet: clocks differ by less than this."""
INBOX_EVENTS = 8_192
"""Consensus messages waiting for the core: a second of work; a round of 128 nodes has 256."""
EARLY_MESSAGES = 1_024
"""Messages of the next height held for the log: more than 128 validators send in a round."""
FETCH_RETRY_MS = 500
"""How often a node asks again for batches of a block that was decided without it."""
REQUEST_TIMEOUT_MS = 3_000
"""After this an unanswered request goes to another peer."""
LOG_ROTATE_BYTES = 64 * MIB
"""The write-ahead log starts anew at the end of a height once it is this large."""
LOG_RESERVE_BYTES = 4 * MIB
"""Room kept ahead of the log's end: half of it alone takes the votes of a hundred rounds."""
LOG_BUFFER_BYTES = 256 * KIB
"""A node that only follows never syncs the log; this bounds what it holds back."""
LOG_RECORD_BYTES = 128 * KIB
"""The largest record is a proposal with its block, 64 KiB and its signature."""
RECENT_BLOCKS = 2
"""Decoded blocks kept for readers, who mostly ask for the newest. More of them would be freed only
after they left the caches of the processor: 16 cost 6 us of CPU per transaction."""
LIGHT_PAGE_BYTES = 512 * KIB
"""Records of one answer to a client that keeps no blocks: 0.4 s of a 10 Mbit/s line."""
SLICE_HEADERS = 16
"""Headers read between two looks at the event loop: about 1 ms."""
QUARANTINE_HEIGHTS = 2
"""How far above the newest certificate of its peers a node may have signed; decision 0022."""
WATCHED_HEIGHTS = 2
"""Decided heights a node without memory sees before it votes: another instance shows itself."""
DUPLICATE_HEIGHTS = 10
"""No vote while one of so many newest certificates has our signature and we cannot say why."""
ARRIVAL_STATUS_MS = 1_000
"""How often a node that has not heard enough says where it stands, which makes peers answer."""
RELEASE_ROUNDS = 2
"""A released node skips so many rounds: one that it may have entered unheard, and one to spare."""
STATEMENT_BYTES = 1 * MIB
"""A statement holds a certificate, a block and two votes of each of 128 validators, in hex."""
SCRUB_CYCLE_MS = 360_000_000
"""One percent of the store an hour, so all of it is read again within 100 hours."""
SCRUB_PAUSE_MS = 200
"""Rest behind every slice of a running scrub: even when it is behind, as on a chain that grows
fast, it takes half a percent of the CPU."""
SCRUB_TRANSACTIONS = 32
"""Transactions decoded and looked up, or keys looked up, in one slice: about 1 ms."""
SCRUB_VALUES = 8
"""Map values looked up, each with the way to it in its tree, in one slice: about 1 ms."""
SCRUB_HASHES = 512
"""Entries hashed in one slice: about 1 ms. A power of two, so that a slice is a subtree."""
BACKUP_STEP_BYTES = 64 * KIB
"""Records that a backup reads before it rests; a batch may be larger, and is then a step itself."""
BACKUP_STEP_BLOCKS = 16
"""The same for small blocks: less than 1 ms."""
BACKUP_PAUSE_MS = 4
"""Rest behind every step of a backup: it takes a fifth of the CPU at most."""
BACKUP_STALL_MS = 60_000
"""How long either end of a backup waits for the other one."""
BACKUP_STREAMS = 2
"""Backups of a node at the same time: one, and one that somebody began by mistake."""
