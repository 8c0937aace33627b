"""Who this node is: its key among the nodes of genesis, and the authority whose links it trusts."""

from dataclasses import dataclass
from datetime import UTC, datetime

from genesis.authority import PEM_BYTES, fingerprint, load_node
from genesis.private_files import read_public
from ledger.addresses import AddressKind, decode_text, encode_text
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Reason, Rejected
from ledger.genesis import Genesis, Node, node_address
from ledger.ids import Address, Signature
from ledger.transaction import Chain
from node.config import TlsSection
from node.keystore import LoadedKey


@dataclass(frozen=True, slots=True)
class Identity:
    """This node among the nodes of genesis, with its key."""

    node: Node
    address: Address
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


def identify(genesis: Genesis, key: LoadedKey, chain: Chain) -> Identity:
    """Find this node's key on the allow-list.

    Raises: Rejected(BAD_GENESIS).
    """
    for node in genesis.nodes:
        if node.key == key.public_key.hex():
            return Identity(node, node_address(node), key.secret, chain.suite)
    address = encode_text(AddressKind.NODE, decode_text(key.address)[1])
    raise Rejected(
        Reason.BAD_GENESIS, "this node's key is not on the allow-list of genesis", address=address
    )
