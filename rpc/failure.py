"""The answer of a node that is an error, as clients meet it."""

from typing import Any

from ledger.errors import KanglianError

Json = dict[str, Any]


class RpcFailure(KanglianError):
    """A node answered with an error; `kind` is stable, `message` is for people."""

    def __init__(self, kind: str, message: str, data: Json) -> None:
        self.kind = kind
        self.message = message
        self.data = data
        super().__init__(f"{kind}: {message}")
