"""Four families of errors, one for each reaction. See docs/decisions/0003-errors.md.

`Rejected`: somebody else's data breaks a rule: answer, count, go on.
`PeerProtocolError` / `LocalProtocolError`: they / we broke the wire protocol.
`UnavailableError`: the world is not ready: bounded retry, shown in health.
`InvariantError`: our own bug or corrupt state: stop loudly and keep the evidence.
"""

from enum import StrEnum, unique


@unique
class Reason(StrEnum):
    """Why data was refused. The value is the RPC `kind` and the metric label."""

    MALFORMED = "malformed"
    """The bytes are not a value of the expected shape."""
    NON_CANONICAL = "non_canonical"
    """The value has another, canonical encoding; only that one is accepted."""
    TOO_LARGE = "too_large"
    """A size or count is above its limit."""
    UNSUPPORTED_VERSION = "unsupported_version"
    """The protocol version is not one this node speaks."""
    WRONG_CHAIN = "wrong_chain"
    """The genesis hash or group belongs to another chain."""
    UNKNOWN_NAMESPACE = "unknown_namespace"
    """The module or its broadcast level does not exist on this chain."""
    EXPIRED = "expired"
    """`valid_until` has passed."""
    VALID_TOO_FAR = "valid_too_far"
    """`valid_until` lies further ahead than the replay window."""
    BAD_SCRIPT = "bad_script"
    """The redeem script breaks a rule or does not hash to the signer's address."""
    BAD_SIGNATURE = "bad_signature"
    """A signature does not verify, is not in low-S form, or its signer set is wrong."""
    UNKNOWN_ACCOUNT = "unknown_account"
    """The account is not on the allow-list of this chain."""
    SIGNER_NOT_CURRENT = "signer_not_current"
    """The signing script is not the account's current one."""
    POOL_FULL = "pool_full"
    """The mempool has no room; try again later."""
    DISK_LOW = "disk_low"
    """The node's disk is nearly full: it only serves reads; use another node or try later."""
    SENDER_LIMIT = "sender_limit"
    """This sender has too many transactions waiting."""
    NAMESPACE_LIMIT = "namespace_limit"
    """This module and level have too many transactions waiting."""
    RATE_LIMIT = "rate_limit"
    """Too many bad signatures came from this client; try again later."""
    BEHIND = "behind"
    """The node is behind with work it has already; try again later."""
    BAD_ADDRESS = "bad_address"
    """A textual address has a wrong prefix, alphabet, length or checksum."""
    BAD_ENVELOPE = "bad_envelope"
    """The operations of an envelope are not those its signed body commits to."""
    BAD_BATCH = "bad_batch"
    """A batch's transactions are not those its header commits to."""
    BAD_BLOCK = "bad_block"
    """A block breaks a rule of the chain; the fact `rule` names it."""
    BAD_CERTIFICATE = "bad_certificate"
    """A certificate does not prove a decision of the validator set."""
    BAD_EVIDENCE = "bad_evidence"
    """Two statements do not convict a validator."""
    BAD_PROOF = "bad_proof"
    """A proof does not lead to the claimed root, or has unused or missing parts."""
    BAD_OPENING = "bad_opening"
    """An opening or record does not match the commitments on chain."""
    BAD_GENESIS = "bad_genesis"
    """A genesis file breaks a rule."""
    STALE = "stale"
    """The newest header is older than the client allows; its sender may be cut off or lie."""
    FROM_FUTURE = "from_future"
    """The time of a header, or of its taking on, lies ahead of the client's clock."""
    TRUST_EXPIRED = "trust_expired"
    """A trusted header is too old to vouch for newer ones; name a newer one by its hash."""
    UNPROVEN = "unproven"
    """No proof of such an answer exists, so a client that verifies every answer does not ask."""
    REVOKED = "revoked"
    """The authority took the node's last certificate back and has not readmitted it."""
    PRUNED = "pruned"
    """It lies below the lowest height that this node holds; an archive has it."""
    BAD_STATEMENT = "bad_statement"
    """A node's statement, or a set of them, cannot release a node from quarantine."""
    BAD_BACKUP = "bad_backup"
    """A backup is not what was written, or not what its chain decided."""
    HALF_FINISHED = "half_finished"
    """A backup, or a restore, was interrupted before its end."""
    OCCUPIED = "occupied"
    """The folder that is to be written holds something already."""
    NOT_SUCCESSFUL = "not_successful"
    """The transaction is on chain but its receipt is not OK."""


class KanglianError(Exception):
    """Root of all errors that this project raises on purpose."""


class Rejected(KanglianError):
    """A value from outside breaks a named rule. Carries facts, not adjectives."""

    def __init__(self, reason: Reason, detail: str = "", **facts: str | int) -> None:
        self.reason = reason
        self.detail = detail
        self.facts = facts
        super().__init__(reason, detail)

    def __str__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self.facts.items())
        return ": ".join(part for part in (str(self.reason), self.detail, facts) if part)


class PeerProtocolError(KanglianError):
    """A peer broke the wire protocol: disconnect it."""


class LocalProtocolError(KanglianError):
    """We used a protocol object wrongly: a bug on our side of the wire."""


class UnavailableError(KanglianError):
    """The world is not ready (time-out, port in use, not synced): it may pass."""


class InvariantError(KanglianError):
    """A promise we make to ourselves is broken: stop the node."""


@unique
class Store(StrEnum):
    """What of a node's data is damaged; the value is the name of its folder."""

    BLOCKS = "blocks"
    BODIES = "bodies"
    STATE = "state"


class StoreDamagedError(InvariantError):
    """A store does not hold what was written into it. It is left as it is, never repaired."""

    def __init__(self, store: str, where: str, problem: str) -> None:
        """`store` is a folder, `where` a file, a height or a key in it, `problem` what is wrong."""
        self.store = store
        self.where = where
        self.problem = problem
        super().__init__(
            f"the store {store} is damaged: {where}: {problem}; it is left as it is, and "
            f"`kanglian node rebuild --config FILE --store {self.rebuild}` makes a new one"
        )

    @property
    def rebuild(self) -> str:
        """What must be made anew: `state` from the own blocks, or `blocks` from peers."""
        return str(Store.STATE if self.store == Store.STATE else Store.BLOCKS)


def invariant(condition: object, message: str) -> None:
    """Raise InvariantError unless `condition`; unlike assert it survives `python -O`."""
    if not condition:
        raise InvariantError(message)
