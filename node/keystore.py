"""Key files: the secret of a node or terminal, sealed by a passphrase, beside its public half.

What it decides: the form of a key file and whether what is in it belongs together.
What it never does: keep a secret longer than the call, print one, or put one into a message.
The seal covers the public half, too: a file whose address was exchanged for another does not open.
Source: RFC 9106 (Argon2id); libsodium `crypto_pwhash` and `crypto_secretbox` (XSalsa20-Poly1305);
architecture section 8 (keys are never in a data backup).
"""

import secrets
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from nacl import exceptions as sodium
from nacl.pwhash import argon2id
from nacl.secret import SecretBox

from genesis.private_files import FileProblem, PrivateFileError, read_private, write_private
from ledger.addresses import AddressKind, address_of, encode_text, single_key_script
from ledger.codec import Document, encode
from ledger.crypto.keys import KEY_TYPE_NAMES, KeyType, public_key
from ledger.crypto.suites import INTERNATIONAL
from ledger.errors import Reason, Rejected, invariant
from ledger.ids import PublicKey

PASSPHRASE_VARIABLE = "KANGLIAN_PASSPHRASE"  # noqa: S105 - the name of a variable
FILE_BYTES = 8 * 1024
"""Ten times a key file as we write it; a passphrase file is smaller still."""

_FORMAT = "kanglian-key/1"
_TAG = b"kl.key-file\0"
_WARNING = "DEVELOPMENT ONLY: this key is not encrypted"
# Below both group orders (SEC 2 secp256k1, FIPS 186-5 P-256): the smaller one, of P-256.
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_KINDS = {"node": AddressKind.NODE, "terminal": AddressKind.TERMINAL}
_KIND_NAMES: dict[AddressKind, Literal["node", "terminal"]] = {
    AddressKind.NODE: "node",
    AddressKind.TERMINAL: "terminal",
}
_TYPE_NAMES: dict[KeyType, Literal["secp256k1", "p256"]] = {
    KeyType.SECP256K1: "secp256k1",
    KeyType.P256: "p256",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess at a passphrase costs: passes, and bytes of memory."""

    ops: int
    mem_bytes: int


MODERATE = Cost(argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE)
"""256 MiB and about half a second: bearable once per start, ruinous for who guesses."""


@dataclass(frozen=True, slots=True)
class PublicHalf:
    """What may be shown of a key; `address` is its text form."""

    kind: AddressKind
    key_type: KeyType
    public_key: PublicKey
    address: str


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """A key that can sign: 32 secret bytes and what they stand for."""

    secret: bytes = field(repr=False)
    public: PublicHalf

    @property
    def kind(self) -> AddressKind:
        """Whether the key is a node's or a terminal's."""
        return self.public.kind

    @property
    def public_key(self) -> PublicKey:
        """The tagged 34-byte public key."""
        return self.public.public_key

    @property
    def address(self) -> str:
        """The text of the address, `kn1…` or `kt1…`."""
        return self.public.address


@dataclass(frozen=True, slots=True)
class PassphraseSource:
    """Where a passphrase comes from: the first of file, environment and prompt that is there.

    `prompt` gets the text to show and gives what was typed; a service has none.
    """

    file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    prompt: Callable[[str], str] | None = None

    def passphrase_for(self, path: Path) -> str:
        """The passphrase for the sealed file `path`.

        Raises: PrivateFileError(NO_PASSPHRASE), or whatever is wrong with the passphrase file.
        """
        if self.file is not None:
            return _not_empty(_passphrase_in(self.file), self.file)
        if PASSPHRASE_VARIABLE in self.environment:
            return _not_empty(self.environment[PASSPHRASE_VARIABLE], path)
        if self.prompt is not None:
            return _not_empty(self.prompt(f"Passphrase for {path}"), path)
        raise PrivateFileError(
            FileProblem.NO_PASSPHRASE,
            path,
            "is encrypted and no passphrase was given",
            f"name a passphrase file or set {PASSPHRASE_VARIABLE}",
        )


def new_secret() -> bytes:
    """32 random bytes that are a secret key of every supported type."""
    return (secrets.randbelow(_ORDER - 1) + 1).to_bytes(32, "big")


def save_key(
    path: Path,
    secret: bytes,
    kind: AddressKind,
    passphrase: str | None,
    *,
    key_type: KeyType = KeyType.SECP256K1,
    cost: Cost = MODERATE,
) -> LoadedKey:
    """Write a new key file of mode 0600; `passphrase` None writes it in plain, for development.

    Raises: PrivateFileError(EXISTS | UNUSABLE | NO_PASSPHRASE), Rejected(MALFORMED) when the bytes
        are not a secret key of `key_type`.
    """
    try:
        public = _public_half(kind, key_type, secret)
    except ValueError:
        detail = f"not a secret key of type {_TYPE_NAMES[key_type]}"
        raise Rejected(Reason.MALFORMED, detail) from None
    if passphrase is None:
        section: _Plain | _Sealed = _Plain(secret.hex(), _WARNING)
    else:
        section = _seal(path, secret, public, _not_empty(passphrase, path), cost)
    file = _KeyFile(
        format=_FORMAT,
        kind=_KIND_NAMES[kind],
        key_type=_TYPE_NAMES[key_type],
        public_key=public.public_key.hex(),
        address=public.address,
        secret=msgspec.to_builtins(section),
    )
    write_private(path, msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")
    return LoadedKey(secret, public)


def load_key(path: Path, source: PassphraseSource) -> LoadedKey:
    """The key in a file; `source` is asked only if the file is sealed.

    Raises: PrivateFileError, any problem of a private file.
    Cost: what the file says, at most 10 passes over 1 GiB.
    """
    public, section = _read(path)
    if isinstance(section, _Plain):
        secret = bytes.fromhex(section.plain)
    else:
        secret = _unseal(path, section, public, source.passphrase_for(path))
    try:
        derived = _public_half(public.kind, public.key_type, secret)
    except ValueError:
        raise _damaged(path, "its secret is not a key of its type") from None
    if derived != public:
        raise _mismatch(path)
    return LoadedKey(secret, public)


def load_public(path: Path) -> PublicHalf:
    """The public half of a key file, without its passphrase: nothing proves the secret is there.

    Raises: PrivateFileError(MISSING | TOO_OPEN | TOO_LARGE | UNUSABLE | DAMAGED | MISMATCH).
    """
    return _read(path)[0]


class _KeyFile(Document, frozen=True):
    format: Literal["kanglian-key/1"]
    kind: Literal["node", "terminal"]
    key_type: Literal["secp256k1", "p256"]
    public_key: Annotated[str, Meta(pattern=r"^[0-9a-f]{68}\Z")]
    address: Annotated[str, Meta(max_length=90)]
    secret: dict[str, str | int]


class _Plain(Document, frozen=True):
    plain: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    warning: str


# The file names its own cost, so a limit keeps a planted file from exhausting the machine.
class _Sealed(Document, frozen=True):
    kdf: Literal["argon2id"]
    ops: Annotated[int, Meta(ge=1, le=10)]
    mem_bytes: Annotated[int, Meta(ge=8 * 1024, le=1024**3)]
    salt: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    cipher: Literal["xsalsa20-poly1305"]
    nonce: Annotated[str, Meta(pattern=r"^[0-9a-f]{48}\Z")]
    # 32 bytes of secret, 32 of binding, 16 of authenticator.
    box: Annotated[str, Meta(pattern=r"^[0-9a-f]{160}\Z")]


def _public_half(kind: AddressKind, key_type: KeyType, secret: bytes) -> PublicHalf:
    if len(secret) != 32:
        raise ValueError("a secret key has 32 bytes")
    return _named(kind, key_type, public_key(key_type, secret))


def _named(kind: AddressKind, key_type: KeyType, key: PublicKey) -> PublicHalf:
    invariant(kind in _KIND_NAMES, "a multi-signature address has no key of its own")
    # Both key types belong to chains of the international suite, whose digest makes the address.
    address = address_of(single_key_script(kind, key), INTERNATIONAL)
    return PublicHalf(kind, key_type, key, encode_text(kind, address))


def _read(path: Path) -> tuple[PublicHalf, _Plain | _Sealed]:
    data = read_private(path, FILE_BYTES)
    try:
        file = msgspec.json.decode(data, type=_KeyFile)
        shape = _Plain if "plain" in file.secret else _Sealed
        section = msgspec.convert(file.secret, shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Without the decoder's words, which may quote what stands in the file.
        raise _damaged(path, "is not a key file of the form kanglian-key/1") from None
    key = PublicKey(bytes.fromhex(file.public_key))
    public = _named(_KINDS[file.kind], KEY_TYPE_NAMES[file.key_type], key)
    if key[0] != public.key_type or file.address != public.address:
        raise _mismatch(path)
    return public, section


def _binding(public: PublicHalf) -> bytes:
    """What ties the sealed secret to the public half of its file; 32 bytes."""
    parts = (int(public.kind), int(public.key_type), public.public_key, public.address)
    return sha256(_TAG + encode(parts)).digest()


def _seal(path: Path, secret: bytes, public: PublicHalf, passphrase: str, cost: Cost) -> _Sealed:
    salt = secrets.token_bytes(argon2id.SALTBYTES)
    nonce = secrets.token_bytes(SecretBox.NONCE_SIZE)
    box = SecretBox(_stretch(path, passphrase, salt, cost))
    return _Sealed(
        kdf="argon2id",
        ops=cost.ops,
        mem_bytes=cost.mem_bytes,
        salt=salt.hex(),
        cipher="xsalsa20-poly1305",
        nonce=nonce.hex(),
        box=box.encrypt(secret + _binding(public), nonce).ciphertext.hex(),
    )


def _unseal(path: Path, sealed: _Sealed, public: PublicHalf, passphrase: str) -> bytes:
    cost = Cost(sealed.ops, sealed.mem_bytes)
    box = SecretBox(_stretch(path, passphrase, bytes.fromhex(sealed.salt), cost))
    try:
        opened = box.decrypt(bytes.fromhex(sealed.box), bytes.fromhex(sealed.nonce))
    except sodium.CryptoError:
        raise PrivateFileError(
            FileProblem.WRONG_PASSPHRASE,
            path,
            "the passphrase does not open it",
            "try again; if it is the right one, the file is damaged: restore it from a copy",
        ) from None
    if opened[32:] != _binding(public):
        raise _mismatch(path)
    return opened[:32]


def _stretch(path: Path, passphrase: str, salt: bytes, cost: Cost) -> bytes:
    # NFC: the same characters typed on another system may come as other code points. Bytes that are
    # no UTF-8 come out of the environment as lone surrogates, and go back to what they were.
    text = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape")
    try:
        return argon2id.kdf(
            SecretBox.KEY_SIZE, text, salt, opslimit=cost.ops, memlimit=cost.mem_bytes
        )
    except sodium.RuntimeError:
        mebibytes = cost.mem_bytes // 1024**2
        raise PrivateFileError(
            FileProblem.UNUSABLE,
            path,
            f"its passphrase needs {mebibytes} MiB of memory, and there is less",
            "free memory on this machine",
        ) from None


def _passphrase_in(path: Path) -> str:
    try:
        text = read_private(path, FILE_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise _damaged(path, "is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")  # editors end a line, people do not mean it


def _not_empty(passphrase: str, path: Path) -> str:
    if not passphrase:
        raise PrivateFileError(
            FileProblem.NO_PASSPHRASE, path, "the passphrase is empty", "give one of some length"
        )
    return passphrase


def _damaged(path: Path, detail: str) -> PrivateFileError:
    return PrivateFileError(FileProblem.DAMAGED, path, detail, "restore it from a copy")


def _mismatch(path: Path) -> PrivateFileError:
    return PrivateFileError(
        FileProblem.MISMATCH,
        path,
        "its secret, public key, kind and address do not belong together",
        "somebody changed the file: restore it from a copy",
    )
