"""What a verified document says: as JSON members for programs, in words for people.

What it decides: member names and sentences; only what was proved is said. Bytes are hexadecimal.
"""

from typing import assert_never

from ledger.proofs.completeness import CompletenessFact
from ledger.proofs.family import AnchoredFact, certified_of
from ledger.proofs.history import HeaderFact, HistoryFact
from ledger.proofs.log import LogFact
from ledger.proofs.receipt import EventFact, ReceiptFact, TransactionFact
from ledger.proofs.state import Collection, ValueFact
from ledger.receipts import Status
from node.messages import say
from rpc import console
from rpc.views import Json, event_view


def fact_view(fact: AnchoredFact, anchor: str) -> Json:
    """What a document proves; `anchor` is the genesis hash that the trust comes from, in hex."""
    certified = certified_of(fact)
    return {
        **_own_view(fact),
        "header_height": certified.header.height,
        "header_hash": certified.hash.hex(),
        "header_time_ms": certified.header.time,
        "anchor": anchor,
    }


def fact_text(fact: AnchoredFact, anchor: str, now_ms: int) -> str:
    """The same for people."""
    header = certified_of(fact).header
    under = say(
        "holds_under",
        header_height=header.height,
        time=console.moment(header.time),
        age=console.duration(now_ms - header.time),
        anchor=anchor,
    )
    return f"{_own_text(fact)}\n{under}"


def _own_view(fact: AnchoredFact) -> Json:
    match fact:
        case ValueFact():
            value = None if fact.value is None else fact.value.hex()
            return {
                **_collection_view(fact.collection, "map"),
                "height": fact.height,
                "key": fact.key.hex(),
                "value": value,
            }
        case LogFact():
            return {
                **_collection_view(fact.collection, "log"),
                "height": fact.height,
                "count": fact.count,
                "last_height": fact.last_height,
                "root": fact.root.hex(),
                "first": fact.first,
                "entries": [
                    {"key": item.key.hex(), "data": item.data.hex()} for item in fact.entries
                ],
            }
        case CompletenessFact():
            return _completeness_view(fact)
        case ReceiptFact():
            return _receipt_view(fact)
        case EventFact():
            view = {"event": fact.index, **event_view(fact.event)}
            return {**view, "receipt": _receipt_view(fact.receipt)}
        case TransactionFact():
            return _transaction_view(fact)
        case HeaderFact():
            return {
                "height": fact.header.height,
                "hash": fact.hash.hex(),
                "time_ms": fact.header.time,
            }
        case HistoryFact():
            return {"size": fact.size, "root": fact.root.hex()}
        case _:
            assert_never(fact)


def _collection_view(collection: Collection, kind: str) -> Json:
    return {
        "module": collection.module,
        "level": collection.level,
        "contract": collection.contract,
        kind: collection.name,
    }


def _completeness_view(fact: CompletenessFact) -> Json:
    return {
        "module": fact.module,
        "level": fact.level,
        "start": fact.start,
        "stop": fact.stop,
        "transactions": sum(block.transactions for block in fact.blocks),
        "receipts": sum(block.receipts for block in fact.blocks),
        "blocks": [
            {
                "height": block.height,
                "transactions": block.transactions,
                "batches": block.batches.hex(),
                "receipts": block.receipts,
                "results": block.results.hex(),
            }
            for block in fact.blocks
        ],
    }


def _receipt_view(fact: ReceiptFact) -> Json:
    receipt = fact.receipt
    return {
        "module": fact.module,
        "level": fact.level,
        "height": fact.height,
        "index": fact.index,
        "count": fact.count,
        "results": fact.results.hex(),
        "operation": receipt.id.hex(),
        "status": Status(receipt.status).name,
        "error": receipt.error,
        "output": receipt.output.hex(),
        "events": [event_view(event) for event in receipt.events],
    }


def _transaction_view(fact: TransactionFact) -> Json:
    call = fact.transaction.operations[fact.operation]
    return {
        "transaction": fact.transaction.id.hex(),
        "account": fact.transaction.body.account.hex(),
        "operation_index": fact.operation,
        "contract": call.contract,
        "method": call.method,
        "arguments": call.arguments.hex(),
        "receipt": _receipt_view(fact.receipt),
    }


def _own_text(fact: AnchoredFact) -> str:
    view = _own_view(fact)
    match fact:
        case ValueFact():
            is_absent = fact.value is None
            return say("holds_absence", **view) if is_absent else say("holds_value", **view)
        case LogFact():
            shown = [f"  {item.key.hex()}: {item.data.hex()}" for item in fact.entries]
            return "\n".join([say("holds_log", **{**view, "shown": len(shown)}), *shown])
        case CompletenessFact():
            shown = [
                say(
                    "holds_block",
                    height=block.height,
                    transactions=block.transactions,
                    receipts=block.receipts,
                )
                for block in fact.blocks
            ]
            return "\n".join([say("holds_completeness", **{**view, "shown": len(shown)}), *shown])
        case ReceiptFact():
            return say("holds_receipt", **view, outcome=_outcome(fact))
        case EventFact():
            event, receipt = fact.event, fact.receipt
            return say(
                "holds_event",
                height=receipt.height,
                operation=receipt.receipt.id.hex(),
                contract=event.contract,
                event=event.name,
                data=event.data.hex(),
            )
        case TransactionFact():
            receipt = {**_receipt_view(fact.receipt), "index": fact.operation}
            outcome = _outcome(fact.receipt)
            return say("holds_transaction", **{**receipt, **view}, outcome=outcome)
        case HeaderFact():
            return say("holds_header", **view, time=console.moment(fact.header.time))
        case HistoryFact():
            return say("holds_history", **view)
        case _:
            assert_never(fact)


def _outcome(fact: ReceiptFact) -> str:
    name, error = Status(fact.receipt.status).name, fact.receipt.error
    return f"{name} ({error})" if error else name
