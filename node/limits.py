"""Limits of one running node; they bound its memory and never decide what is valid on chain."""

from ledger.limits import KIB, MIB

POOL_TRANSACTIONS = 50_000
"""Ten seconds of 5,000 transactions a second: a longer queue only adds waiting."""
POOL_BYTES = 64 * MIB
"""At most the memory of the pool's transactions."""
POOL_TRANSACTIONS_PER_SENDER = 20_000
"""One sender may fill less than half of the pool."""
PENDING_BATCH_BYTES = 128 * MIB
"""Batches that no block refers to yet; what does not fit is pulled when a proposal needs it."""
VERIFY_QUEUE_BYTES = 32 * MIB
"""Batches of peers waiting for verification; beyond it their links are read no further."""
BATCH_DELAY_MS = 10
"""How long the first transaction after a pause waits for company."""
BATCH_INTERVAL_MS = 100
"""Under load a batch is made this often: as often as a block is due."""
BATCH_TARGET_TRANSACTIONS = 250
"""A batch is cut early at this size: 250 signatures are about 10 ms of CPU for a receiver."""
BATCH_TARGET_BYTES = 512 * KIB
"""Half the protocol's limit, so that an envelope never meets a full batch."""
BLOCK_TRANSACTIONS = 5_000
"""What a proposer puts into one block: about 150 ms of execution."""
BLOCK_OPERATIONS = 20_000
"""The same bound for envelopes: about 300 ms of execution."""
SLICE_SIGNATURES = 64
"""Verifications between two looks at the event loop: 1.5 to 3 ms, by the machine's V."""
SLICE_TRANSACTIONS = 200
"""Executions between two looks at the event loop: about 1.5 ms."""
VERIFIED_CACHE = 32_768
"""Leaves of checked transactions, twice at most: 6 MB; a client's resend is then free."""
SYNC_BLOCKS = 64
"""Blocks of one answer, also bounded by SYNC_BYTES."""
SYNC_BYTES = 8 * MIB
"""One answer stays below the frame limit; a block may fill it alone."""
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
REQUESTED_BATCHES = 256
"""As many as one block can refer to."""
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
RECENT_BLOCKS = 8
"""Decoded blocks kept for readers: proofs and receipts mostly ask for the newest."""
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
