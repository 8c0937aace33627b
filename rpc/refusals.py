"""What a client is told who asks for something that is not on this node.

What it decides: the error code and the words. What it never does: look anything up for long.
"""

from ledger.ids import TransactionId
from node.service import NodeService
from rpc.jsonrpc import RpcError

NOT_FOUND = -32040
"""Nothing on this node answers to what was asked for."""


def unknown_id(service: NodeService, any_id: str) -> RpcError:
    """The refusal of an id, in hex, that no executed block holds."""
    pending = service.is_pending(TransactionId(bytes.fromhex(any_id)))
    height = service.height
    where = "it is pending here" if pending else "it is not pending here either"
    message = f"no transaction or operation {any_id} up to height {height}; {where}"
    return RpcError(
        NOT_FOUND, message, "not_found", {"id": any_id, "pending": pending, "height": height}
    )
