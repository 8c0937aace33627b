"""A backup whose checksums are right is still nothing but what its validators signed."""

import msgspec
import pytest

from ledger.batch import decode_batch
from ledger.block import BLOCK, HEADER, block_hash
from ledger.codec import encode
from ledger.errors import InvariantError, Reason, Rejected
from ledger.store.archive import ArchivedBlock, check_link, manifest_bytes, seal
from ledger.store.archive_files import ArchiveWriter
from ledger.store.blocks import StoredBlock
from ledger.votes import CERTIFICATE
from node.backup import stored_blocks
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import (
    CHAIN,
    GENESIS,
    certify,
    certify_by,
)
from tests.unit.node_core.test_membership import governed_chain

from .backups import CREATED_MS, grown, keep, replayed


@pytest.fixture(scope="module")
def chain():
    return grown(4)


@pytest.fixture(scope="module")
def blocks(chain):
    return list(stored_blocks(chain.blocks, chain.tip.height))


def written(blocks, folder):
    """A backup of these blocks, with all its checksums."""
    writer = ArchiveWriter(folder, CHAIN)
    for archived in blocks:
        writer.add(archived)
    writer.finish(GENESIS.chain_name, CREATED_MS)
    return folder


def with_certificate(archived, certificate):
    return ArchivedBlock(StoredBlock(archived.stored.block, certificate), archived.batches)


def name_of(archived):
    return block_hash(BLOCK.decode(archived.stored.block).header, SUITE)


def refused(folder):
    with pytest.raises(Rejected) as refusal:
        replayed(folder)
    assert refusal.value.reason == Reason.BAD_BACKUP
    assert refusal.value.facts["file"] == "00000001.chunk"
    return refusal.value.facts["at_height"], str(refusal.value)


def test_a_certificate_of_too_few_is_refused_with_its_height(blocks, tmp_path):
    few = with_certificate(blocks[1], certify(name_of(blocks[1]), 2, signers=(0, 1)))
    height, said = refused(written([blocks[0], few, *blocks[2:]], tmp_path / "b"))
    assert height == 2
    assert "bad_certificate: fewer signatures than a quorum" in said


def test_a_signature_of_nobody_is_refused_with_its_height(blocks, tmp_path):
    found = CERTIFICATE.decode(blocks[3].stored.certificate)
    signatures = ((0, bytes(64)), *found.signatures[1:])
    forged = encode(msgspec.structs.replace(found, signatures=signatures))
    height, said = refused(
        written([*blocks[:3], with_certificate(blocks[3], forged)], tmp_path / "b")
    )
    assert height == 4
    assert "bad_certificate: signature" in said


def test_a_block_that_leads_elsewhere_is_not_taken_even_if_a_quorum_signed_it(blocks, tmp_path):
    """That breaks a promise of the chain, so it is no ordinary refusal."""
    block = BLOCK.decode(blocks[3].stored.block)
    header = msgspec.structs.replace(HEADER.decode(block.header), state_root=bytes(32))
    lying = msgspec.structs.replace(block, header=encode(header))
    certificate = certify(block_hash(lying.header, SUITE), 4)
    forged = ArchivedBlock(StoredBlock(encode(lying), certificate), blocks[3].batches)
    with pytest.raises(InvariantError, match="block 4 was decided but contradicts"):
        replayed(written([*blocks[:3], forged], tmp_path / "b"))


def test_a_batch_without_its_authors_signature_is_refused(blocks, tmp_path):
    signed = decode_batch(blocks[0].batches[0])
    unsigned = encode(msgspec.structs.replace(signed, signature=bytes(64)))
    forged = ArchivedBlock(blocks[0].stored, (unsigned,))
    height, said = refused(written([forged, *blocks[1:]], tmp_path / "b"))
    assert height == 1
    assert "bad_signature: author of a batch" in said


def test_a_manifest_that_tells_of_another_tip_is_refused(chain, blocks, tmp_path):
    folder = tmp_path / "b"
    made = keep(chain, folder)
    for name, value in (
        ("block_hash", "00" * 32),
        ("header", BLOCK.decode(blocks[0].stored.block).header.hex()),
        ("certificate", blocks[0].stored.certificate.hex()),
    ):
        forged = seal(msgspec.structs.replace(made, **{name: value}))
        (folder / "manifest.json").write_bytes(manifest_bytes(forged))
        with pytest.raises(Rejected, match="another newest block"):
            replayed(folder)


@pytest.mark.parametrize("field", ["height", "last_height", "first_height", "size", "file"])
def test_a_manifest_whose_chunks_contradict_it_is_refused(chain, tmp_path, field):
    folder = tmp_path / "b"
    made = keep(chain, folder)
    if field == "height":
        forged = msgspec.structs.replace(made, height=5)
    else:
        value = "../letters" if field == "file" else getattr(made.chunks[0], field) + 1
        chunk = msgspec.structs.replace(made.chunks[0], **{field: value})
        forged = msgspec.structs.replace(made, chunks=(chunk,))
    (folder / "manifest.json").write_bytes(manifest_bytes(seal(forged)))
    with pytest.raises(Rejected) as refusal:
        replayed(folder)
    assert refusal.value.reason == Reason.BAD_BACKUP


def test_a_count_of_batches_that_is_wrong_is_refused(chain, tmp_path):
    folder = tmp_path / "b"
    made = keep(chain, folder)
    chunk = msgspec.structs.replace(made.chunks[0], batches=9)
    forged = seal(msgspec.structs.replace(made, chunks=(chunk,)))
    (folder / "manifest.json").write_bytes(manifest_bytes(forged))
    with pytest.raises(Rejected, match="other records than the manifest counts"):
        replayed(folder)


def test_what_is_written_follows_the_block_before_with_its_own_batches(blocks):
    first, second = blocks[:2]
    cases = (
        (second, 1, CHAIN.genesis_hash, "another height"),
        (second, 2, CHAIN.genesis_hash, "does not follow"),
        (with_certificate(first, second.stored.certificate), 1, CHAIN.genesis_hash, "certificate"),
        (ArchivedBlock(first.stored, second.batches), 1, CHAIN.genesis_hash, "other batches"),
        (ArchivedBlock(first.stored, ()), 1, CHAIN.genesis_hash, "other batches"),
    )
    for archived, height, previous, words in cases:
        with pytest.raises(Rejected, match=words):
            check_link(archived, height, previous, CHAIN)
    assert check_link(first, 1, CHAIN.genesis_hash, CHAIN) == name_of(first)


def test_a_backup_is_verified_through_changes_of_the_validators(tmp_path):
    chain, joined, left = governed_chain()
    blocks = list(stored_blocks(chain.blocks, chain.tip.height))
    found = replayed(written(blocks, tmp_path / "whole"))
    assert found.tip == chain.writer.tip
    assert len(found.validators.members) == 4
    for number, height in enumerate((joined - 1, left)):
        archived = blocks[height - 1]
        others = chain.writer.validators_at(joined)
        certificate = certify_by(others, name_of(archived), height)
        forged = [*blocks[: height - 1], with_certificate(archived, certificate), *blocks[height:]]
        where, said = refused(written(forged, tmp_path / str(number)))
        assert where == height
        assert "bad_certificate" in said
