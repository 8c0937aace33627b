"""A node that shows a chain of certified headers, true or not, to light clients."""

from ledger.block import HEADER
from ledger.codec import encode
from ledger.errors import UnavailableError
from ledger.light.history import prove_old_header
from rpc.light.source import Source
from tests.unit.ledger.light_chains import LightChain
from tests.unit.ledger.worlds import SUITE


class LightNode:
    """Answers up to `height`; `page` is how many changes one answer holds."""

    def __init__(self, chain: LightChain, height: int, url="http://a:1", page=64) -> None:
        self.chain = chain
        self.height = height
        self.url = url
        self.page = page
        self.asked = []

    def ask(self, method, /, **params):
        self.asked.append((method, params))
        return getattr(self, method)(**params)

    def wait_height(self, height=0, timeout_ms=0):
        return {"height": self.height}

    def get_headers(self, first, count):
        blocks = [self.shown(it) for it in range(first, min(first + count, self.height + 1))]
        return {"height": self.height, "first": first, "light_blocks": blocks}

    def get_validator_changes(self, after):
        heights = [
            height
            for height in range(after + 1, self.height + 1)
            if self.chain.blocks[height].next_validators
        ]
        blocks = [self.shown(height) for height in heights[: self.page]]
        more = len(heights) > self.page
        return {"height": self.height, "after": after, "light_blocks": blocks, "more": more}

    def get_old_header(self, height, under):
        header = self.chain.blocks[height].header
        record = prove_old_header(header, self.chain, SUITE.digest, under)
        return {"height": self.height, "old_header": encode(record).hex()}

    def shown(self, height):
        return encode(self.chain.blocks[height]).hex()

    @property
    def source(self) -> Source:
        return Source(self)


class Dead:
    """Nobody is there."""

    url = "http://dead:1"

    def ask(self, method, /, **params):
        raise UnavailableError("no answer from http://dead:1")


def heights_of(blocks):
    return [HEADER.decode(block.header).height for block in blocks]
