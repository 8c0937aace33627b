"""Log files that a test leaves open are closed behind it."""

from tests.unit.node_core.conftest import logs

__all__ = ["logs"]
