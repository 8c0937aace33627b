"""Heights, blocks and proofs under a trusted header, out of what untrusted nodes answer.

What it decides: whether a header is one of the chain that is trusted, and whether batches and
receipts are all of those that headers commit to. A header at or above the trusted height is reached
by following, one below it by its path in the history: no old key is asked.
Source: docs/format.md sections 6, 7 and 13.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from ledger.batch import block_order, parse_batch
from ledger.block import HEADER, Block, Header, batches_root, block_hash, receipts_root
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.ids import BlockHash, TransactionId
from ledger.light.documents import LIGHT_PROOF_FORMAT, LightProof, Trust, without_certificates
from ledger.light.history import OldHeader, verify_old_header
from ledger.light.trust import check_vouches
from ledger.proof import RegistrationProof, Verdict, verify_between
from ledger.receipts import RECEIPT, Receipt, Status
from ledger.store.results import NamespaceResult
from ledger.succession import decided_header
from ledger.transaction import Transaction, operation_ids
from ledger.validators import ValidatorSet
from ledger.votes import CERTIFICATE, verify_certificate
from node.executor import receipt_summaries
from node.service import FoundBlock, FoundTransaction
from rpc.light.keeper import TrustKeeper
from rpc.light.source import Source

T = TypeVar("T")
Receipts = dict[tuple[str, int], tuple[bytes, ...]]
"""Receipts of a block by module and level, in execution order."""

BLOCKS_KEPT = 4
"""Verified blocks kept for the next question: 8 MiB of bodies each at most."""
SOON = 2
"""A height that is so near is waited for: the header that carries receipts, and one to spare."""
FOLLOW_MS = 10_000
"""How long a node may take to come to a header that it speaks of."""


@dataclass(frozen=True, slots=True)
class AnchoredHeader:
    """A header that the trusted chain holds."""

    data: bytes
    header: Header
    hash: BlockHash


class Anchor:
    """What one node shows, held against one trust."""

    def __init__(self, source: Source, witnesses: Sequence[Source], keeper: TrustKeeper) -> None:
        self.source = source
        self.keeper = keeper
        self._witnesses = witnesses
        self._blocks: dict[int, FoundBlock] = {}
        self._results: dict[int, Receipts] = {}
        self._rulers: dict[bytes, ValidatorSet] = {}

    def follow(self) -> None:
        """Come to the newest header that the node shows. Raises: as `Follower.run`."""
        self.keeper.follow(self.source, self._witnesses)

    def header(self, height: int) -> AnchoredHeader:
        """The header of a height.

        Raises: Rejected where what the node shows does not verify; UnavailableError where it has
            not come to that height; RpcFailure.
        """
        self.reach(height)
        trust = self.keeper.trust
        if height == trust.trusted.height and trust.block is not None:
            data = trust.block.header
            return AnchoredHeader(data, HEADER.decode(data), trust.trusted.hash)
        with self.source.blamed():
            proof = self.source.old_header(height, trust.trusted.height)
            known = verify_old_header(proof, trust.trusted, trust.chain)
            if known.header.height != height:
                raise Rejected(Reason.BAD_PROOF, "a header of another height", height=height)
        return AnchoredHeader(proof.header, known.header, known.hash)

    def reach(self, height: int) -> None:
        """Follow until the trusted header is at least at a height."""
        if self.keeper.trust.trusted.height >= height and self.keeper.trust.block is not None:
            return
        if self.source.newest_height() + SOON >= height:
            self.source.wait_height(height, FOLLOW_MS)
        self.follow()
        newest = self.keeper.trust.trusted.height
        if newest < height:
            raise UnavailableError(f"{self.source.name} shows no height {height} yet: {newest}")

    def check_certificate(self, anchored: AnchoredHeader, data: bytes) -> None:
        """Whether these bytes are a certificate of a header by the set that ruled it.

        Raises: Rejected(BAD_CERTIFICATE | …).  Cost: one V for each signature.
        """
        header = anchored.header
        with self.source.blamed():
            certificate = CERTIFICATE.decode(data)
            if (certificate.height, certificate.block_hash) != (header.height, anchored.hash):
                raise Rejected(Reason.BAD_CERTIFICATE, "of another block", height=header.height)
            verify_certificate(certificate, self.rulers(header), self.keeper.trust.chain)

    def rulers(self, header: Header) -> ValidatorSet:
        """The set that ruled a header of the chain, which it commits to."""
        found = self._rulers.get(header.validators_hash)
        if found is None:
            found = self.source.validators(header.height)
            if found.hash(self.keeper.trust.chain.suite) != header.validators_hash:
                raise Rejected(Reason.BAD_PROOF, "other validators", height=header.height)
            self._rulers[header.validators_hash] = found
        return found

    def successors(self, anchored: AnchoredHeader) -> ValidatorSet:
        """The set that follows a header of the chain."""
        trusted, height = self.keeper.trust.trusted, anchored.header.height
        if height == trusted.height:
            return trusted.next_validators
        return self.rulers(self.header(height + 1).header)

    def block(self, height: int) -> FoundBlock:
        """A block with all of its batches.

        Raises: Rejected(BAD_PROOF | BAD_BATCH | …) for batches that the header does not commit to.
        Cost: all bodies of the block, at most 8 MiB.
        """
        found = self._blocks.get(height)
        if found is None:
            anchored = self.header(height)
            with self.source.blamed():
                found = self._fetch(anchored)
            _keep(self._blocks, height, found)
        return found

    def _fetch(self, anchored: AnchoredHeader) -> FoundBlock:
        chain, height = self.keeper.trust.chain, anchored.header.height
        batches = tuple(parse_batch(wire, chain) for wire in self.source.batches(height))
        if any(low >= high for low, high in pairwise(map(block_order, batches))):
            raise Rejected(Reason.BAD_PROOF, "batches out of order", height=height)
        if batches_root(batches, chain.suite) != anchored.header.batches_root:
            raise Rejected(Reason.BAD_PROOF, "batches that the header does not hold", height=height)
        digests = tuple(batch.digest for batch in batches)
        # The certificate of the block before stands in no answer, so it is not asked for.
        block = Block(anchored.data, b"", digests)
        return FoundBlock(anchored.data, anchored.header, block, anchored.hash, b"", batches)

    def transaction(self, any_id: bytes, height: int) -> FoundTransaction:
        """A transaction of a block by its id or that of an operation, with all its receipts.

        Raises: Rejected(BAD_PROOF) where it does not stand there, or stands there only again;
            UnavailableError while the next header is not decided.
        """
        block, suite = self.block(height), self.keeper.trust.chain.suite
        receipts = self._receipts(height)
        index = 0
        places: dict[tuple[str, int], int] = {}
        for batch in block.batches:
            for item in batch.transactions:
                namespace = (item.body.module, item.body.level)
                first = places.get(namespace, 0)
                places[namespace] = first + len(item.operations)
                ids = operation_ids(item, suite)
                if any_id == item.id or any_id in ids:
                    own = receipts.get(namespace, ())[first : places[namespace]]
                    found = _found(block, item, ids, index, any_id, own)
                    if found is not None:
                        return found
                index += 1
        detail = f"{self.source.name} names a block that does not hold it"
        raise Rejected(Reason.BAD_PROOF, detail, id=any_id.hex(), height=height)

    def _receipts(self, height: int) -> Receipts:
        """All receipts of a block, which the next header commits to."""
        kept = self._results.get(height)
        if kept is not None:
            return kept
        following, suite = self.header(height + 1), self.keeper.trust.chain.suite
        with self.source.blamed():
            found = self.source.receipts(height)
            results = tuple(NamespaceResult(*place, items) for place, items in found.items())
            root = receipts_root(receipt_summaries(results, suite), suite)
            if root != following.header.receipts_root:
                raise Rejected(Reason.BAD_PROOF, "receipts that no header holds", height=height)
        _keep(self._results, height, found)
        return found

    def light_proof(self, proof: RegistrationProof) -> LightProof:
        """A proof with the path from its second header to the trusted one.

        Raises: as `header`; Rejected(BAD_PROOF) where that header is not of the trusted chain.
        """
        data = bytes.fromhex(proof.next_header)
        header = HEADER.decode(data)
        self.reach(header.height)
        trust = self.keeper.trust
        path: tuple[bytes, ...] = ()
        if header.height < trust.trusted.height:
            path = self.source.old_header(header.height, trust.trusted.height).path
        return LightProof(
            format=LIGHT_PROOF_FORMAT,
            registration=without_certificates(proof),
            trusted_height=trust.trusted.height,
            path=tuple(item.hex() for item in path),
        )


def verify_light_proof(proof: LightProof, trust: Trust) -> Verdict:
    """Check a re-anchored proof against the trust that it was made under, from nothing else.

    Raises: Rejected; UnavailableError where the trust stands at another height by now.
    Cost: one V per signature of the transaction, and one hash for each step.
    """
    if proof.trusted_height != trust.trusted.height:
        raise UnavailableError(
            f"the proof leads to header {proof.trusted_height} and the trust stands at "
            f"{trust.trusted.height}; name a node with --rpc, which need not be trusted"
        )
    data = bytes.fromhex(proof.registration.next_header)
    if proof.registration != without_certificates(proof.registration):
        raise Rejected(Reason.BAD_PROOF, "a certificate that nothing needs")
    path = tuple(bytes.fromhex(item) for item in proof.path)
    if HEADER.decode(data).height == trust.trusted.height:
        if path or block_hash(data, trust.chain.suite) != trust.trusted.hash:
            raise Rejected(Reason.BAD_PROOF, "not the trusted header")
    else:
        verify_old_header(OldHeader(data, path), trust.trusted, trust.chain)
    return verify_between(proof.registration, trust.chain)


def verify_newer_proof(proof: RegistrationProof, trust: Trust, now_ms: int) -> Verdict:
    """Check a proof of a height that the validators after the trusted header rule, without a node.

    Raises: Rejected; TRUST_EXPIRED where the trusted header is too old to vouch for it.
    Cost: one V per signature of the transaction and of the certificate.
    """
    check_vouches(trust.trusted, trust.terms, now_ms)
    ruling = trust.trusted.next_validators
    data, certificate = bytes.fromhex(proof.next_header), bytes.fromhex(proof.next_certificate)
    header, _ = decided_header(data, certificate, ruling, trust.chain)
    distance = header.height - trust.trusted.height
    if distance < 1 or header.time < trust.trusted.time_ms + distance:
        raise Rejected(Reason.BAD_PROOF, "height and time must grow", height=header.height)
    if distance == 1 and header.previous_hash != trust.trusted.hash:
        raise Rejected(Reason.BAD_PROOF, "it does not follow the trusted header")
    return verify_between(proof, trust.chain)


def _found(
    block: FoundBlock,
    item: Transaction,
    ids: tuple[TransactionId, ...],
    index: int,
    any_id: bytes,
    encoded: Sequence[bytes],
) -> FoundTransaction | None:
    """What a node finds, or None where the transaction only stands here a second time."""
    receipts: tuple[Receipt, ...] = tuple(map(RECEIPT.decode, encoded))
    if tuple(receipt.id for receipt in receipts) != ids:
        raise Rejected(Reason.BAD_PROOF, "receipts of other operations", id=any_id.hex())
    if all(receipt.status == Status.DUPLICATE for receipt in receipts):
        return None
    return FoundTransaction(
        transaction=item,
        block_height=block.header.height,
        block_time=block.header.time,
        index=index,
        operation=None if any_id == item.id else ids.index(TransactionId(any_id)),
        operation_ids=ids,
        receipts=receipts,
    )


def _keep(cache: dict[int, T], height: int, item: T) -> None:
    while len(cache) >= BLOCKS_KEPT:
        del cache[next(iter(cache))]
    cache[height] = item
