"""Who this node is: its key among the members, and the authority whose links it trusts."""

from dataclasses import dataclass
from datetime import UTC, datetime

from genesis.authority import PEM_BYTES, fingerprint, load_node
from genesis.private_files import read_public
from ledger.addresses import AddressKind, address_of, single_key_script
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Reason, Rejected
from ledger.genesis import Genesis
from ledger.ids import Address, Signature
from node.config import NodeSection, TlsSection
from node.keystore import LoadedKey
from node.members import Members


@dataclass(frozen=True, slots=True)
class Identity:
    """This node with its key; `script` is what its own transactions are signed under."""

    name: str
    address: Address
    script: bytes
    secret: bytes
    suite: CryptoSuite

    def sign(self, digest: bytes) -> Signature:
        """Sign a 32-byte digest with the node's key."""
        return self.suite.sign(self.secret, digest)


def check_links(genesis: Genesis, tls: TlsSection, now_ms: int) -> None:
    """Trust the links of no other authority than genesis names, and show peers a good certificate.

    Raises: PrivateFileError naming the file, Rejected(BAD_GENESIS).
    """
    path = tls.authority_file
    try:
        found = fingerprint(read_public(path, PEM_BYTES))
    except Rejected as refusal:
        raise Rejected(Reason.BAD_GENESIS, f"{path}: {refusal.detail}") from None
    if found.hex() != genesis.authority:
        raise Rejected(Reason.BAD_GENESIS, f"{path} is not the authority that genesis names")
    now = datetime.fromtimestamp(now_ms / 1_000, UTC)
    load_node(tls.certificate_file, tls.key_file, path, now)


def identify(
    section: NodeSection, key: LoadedKey, suite: CryptoSuite, members: Members
) -> Identity:
    """Find this node's key among those that are or were members; one that joins goes by its word.

    Raises: Rejected(BAD_GENESIS).
    """
    script = single_key_script(AddressKind.NODE, key.public_key)
    address = address_of(script, suite)
    known = members.find(address)
    if known is None and not section.joining:
        raise Rejected(
            Reason.BAD_GENESIS,
            "this node's key is not on the allow-list of genesis; "
            "if the members are to vote it in, set node.joining = true",
            address=members.name(address),
        )
    name = section.name if known is None else known.name
    return Identity(name, address, script, key.secret, suite)
