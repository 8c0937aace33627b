"""What a client is told who asks for something that is not on this node.

What it decides: the error code and the words. What it never does: look anything up for long.
"""

from ledger.ids import TransactionId
from node.service import NodeService
from rpc.failure import Json
from rpc.jsonrpc import RpcError

NOT_FOUND = -32040
"""Nothing on this node answers to what was asked for."""


def unknown_id(service: NodeService, any_id: str) -> RpcError:
    """The refusal of an id, in hex, that no executed block holds."""
    pending = service.is_pending(TransactionId(bytes.fromhex(any_id)))
    height, lowest = service.height, service.info().lowest
    since = "" if lowest == 1 else f" and from {lowest} on, where this node begins"
    where = "it is pending here" if pending else "it is not pending here either"
    message = f"no transaction or operation {any_id} up to height {height}{since}; {where}"
    data: Json = {"id": any_id, "pending": pending, "height": height, "lowest": lowest}
    return RpcError(NOT_FOUND, message, "not_found", data)
