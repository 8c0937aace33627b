"""Log files that a test leaves open are closed behind it."""

import pytest

from .memory_network import OPENED


@pytest.fixture(autouse=True)
def logs():
    """Close every log that the test opened."""
    yield
    while OPENED:
        OPENED.pop().close()
