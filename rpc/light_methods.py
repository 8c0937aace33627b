"""The JSON-RPC methods for clients that keep no blocks.

What it decides: names, parameters and bounds. Records are told as the hexadecimal of their
canonical bytes (docs/format.md section 13), so that a client parses one form, strictly. Every
answer names the newest executed `height`.
Source: docs/decisions/0035-light-client.md.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from node.service import NodeService
from rpc.jsonrpc import Context, Method, RpcError
from rpc.limits import STEP_ITEMS
from rpc.refusals import NOT_FOUND
from rpc.views import Json, list_view

HEADERS = 64
"""Light blocks of one answer, also bounded by node.limits.LIGHT_PAGE_BYTES."""
RECEIPTS = 20_000
"""No block has more operations, so no index lies beyond."""

HeightNumber = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Above = Annotated[int, Meta(ge=0, le=2**63 - 1)]
PageCount = Annotated[int, Meta(ge=1, le=HEADERS)]


class HeadersParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Heights from `first` on; fewer than `count` are answered at the tip or when they are long."""

    first: HeightNumber
    count: PageCount = HEADERS


class ChangesParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changes that headers above `after` commit to, the oldest first."""

    after: Above
    count: PageCount = HEADERS


class RulersParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A height."""

    height: HeightNumber


class OldHeaderParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A height, and that of the later header whose history shall hold it."""

    height: HeightNumber
    under: HeightNumber


class ExtensionParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The heights of two headers, the older first."""

    old: HeightNumber
    new: HeightNumber


class PartsParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A block, and the index of its part to begin with."""

    height: HeightNumber
    first: Annotated[int, Meta(ge=0, le=RECEIPTS)] = 0


class LightMethods:
    """The handlers, over one node."""

    __slots__ = ("_service",)

    def __init__(self, service: NodeService) -> None:
        self._service = service

    def methods(self) -> list[Method[Any]]:
        """All methods, for the registry."""
        return [
            Method(
                "get_headers",
                HeadersParams,
                self.get_headers,
                "Headers with certificates from a height on, a page at a time",
            ),
            Method(
                "get_validator_changes",
                ChangesParams,
                self.get_validator_changes,
                "The headers that commit to other validators, a page at a time",
            ),
            Method(
                "get_validators", RulersParams, self.get_validators, "Who rules a height, in order"
            ),
            Method(
                "get_old_header",
                OldHeaderParams,
                self.get_old_header,
                "A header and its path in the history of a later one",
            ),
            Method(
                "get_history_extension",
                ExtensionParams,
                self.get_history_extension,
                "The path that shows the history of one header to begin that of another",
            ),
            Method(
                "get_batches",
                PartsParams,
                self.get_batches,
                "The batches of a block in base64, a page at a time",
            ),
            Method(
                "get_receipts",
                PartsParams,
                self.get_receipts,
                "The receipts of a block, a page at a time",
            ),
        ]

    async def get_headers(self, params: HeadersParams, _context: Context) -> Json:
        """A page of light blocks."""
        self._check(params.first)
        blocks = await self._service.light.headers(params.first, params.count)
        found = await list_view((item.hex() for item in blocks), STEP_ITEMS)
        return {"height": self._service.height, "first": params.first, "light_blocks": found}

    async def get_validator_changes(self, params: ChangesParams, _context: Context) -> Json:
        """A page of light blocks."""
        page = await self._service.light.changes(params.after, params.count)
        found = await list_view((item.hex() for item in page.blocks), STEP_ITEMS)
        return {
            "height": self._service.height,
            "after": params.after,
            "light_blocks": found,
            "more": page.has_more,
        }

    async def get_validators(self, params: RulersParams, _context: Context) -> Json:
        """A set; that of the height after the newest is known as well."""
        self._check(params.height, self._service.height + 1)
        members = self._service.light.validators(params.height).members
        named = [{"address": item.address.hex(), "key": item.key.hex()} for item in members]
        return {"height": self._service.height, "validators": named}

    async def get_old_header(self, params: OldHeaderParams, _context: Context) -> Json:
        """A record of docs/format.md section 13."""
        self._check(params.under)
        self._check(params.height, params.under - 1)
        record = self._service.light.old_header(params.height, params.under)
        return {"height": self._service.height, "old_header": record.hex()}

    async def get_history_extension(self, params: ExtensionParams, _context: Context) -> Json:
        """A record of docs/format.md section 13."""
        self._check(params.new)
        self._check(params.old, params.new)
        record = self._service.light.extension(params.old, params.new)
        return {"height": self._service.height, "extension": record.hex()}

    async def get_batches(self, params: PartsParams, _context: Context) -> Json:
        """As many as fit; `count` is how many the block has."""
        self._check(params.height)
        page = await self._service.light.batches(params.height, params.first)
        return {
            "height": self._service.height,
            "first": params.first,
            "count": page.count,
            "batches": await list_view(page.wires, 1),
        }

    async def get_receipts(self, params: PartsParams, _context: Context) -> Json:
        """As many as fit; `namespaces` tells how many each has in the row of all."""
        self._check(params.height)
        page = await self._service.light.receipts(params.height, params.first)
        namespaces = [
            {"module": module, "level": level, "count": count}
            for module, level, count in page.namespaces
        ]
        receipts = await list_view((item.hex() for item in page.receipts), STEP_ITEMS)
        return {
            "height": self._service.height,
            "first": params.first,
            "namespaces": namespaces,
            "receipts": receipts,
        }

    def _check(self, height: int, last: int | None = None) -> None:
        """Raises: RpcError(not_found) for a height above `last`, by default the newest."""
        newest = self._service.height
        limit = newest if last is None else last
        if height > limit:
            message = f"height {height} is above {limit}; the newest is {newest}"
            raise RpcError(NOT_FOUND, message, "not_found", {"block": height, "height": newest})
