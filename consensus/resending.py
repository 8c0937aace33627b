"""What a peer may lack, and how often it is told.

Links lose messages when they break; Tendermint's liveness needs that all correct nodes get within a
bounded time what one of them has. So nodes tell each other where they stand once per status
interval, and a peer that differs or does not move is sent the stored messages of its round, this
node's round, and the valid and locked ones.
A peer that always claims to lag costs one answer per interval (Tendermint GHSA-cpqw-5g6w-h8rr).
Source: research consensus-reliability section 1.2, points 3 and 8.
"""

from consensus.events import BroadcastStatus, Effect, PeerStatus, SendTo, Step
from consensus.height_state import HeightState
from ledger.ids import Round


class Resending:
    """Who was answered since the last tick, and where peers stood before; one per height."""

    __slots__ = ("_answered", "_positions")

    def __init__(self) -> None:
        self._answered: set[bytes] = set()
        self._positions: dict[bytes, tuple[int, int]] = {}

    def tick(self) -> None:
        """A status interval has passed: every peer may be answered again."""
        self._answered.clear()

    def answer(self, state: HeightState, status: PeerStatus) -> list[Effect]:
        """The answer to a peer's status; empty if it needs none or had one this interval."""
        if status.height != state.height or status.step >= Step.DECIDED:
            return []
        if state.step is Step.IDLE:
            return _idle_answer(state, status)
        position = (status.round, status.step)
        is_repeated = self._positions.get(status.peer) == position
        self._positions[status.peer] = position
        is_alike = position == (state.round, state.step) and not is_repeated
        if not state.is_running or is_alike or status.peer in self._answered:
            return []
        self._answered.add(status.peer)
        return _send(state, status)


def _idle_answer(state: HeightState, status: PeerStatus) -> list[Effect]:
    """Pass on the few votes held and say "I am idle", so that the running peer sends what it has.

    Without a status timer there is no interval to count; fewer than f + 1 validators' votes of two
    rounds are all there is to send. A status cannot start a height, for it is not signed.
    """
    if status.step <= Step.IDLE:
        return []
    idle = BroadcastStatus(state.height, state.round, state.step)
    return [*_send(state, status), idle]


def _send(state: HeightState, status: PeerStatus) -> list[Effect]:
    wanted = {status.round, state.round, state.valid_round, state.locked_round}
    messages = tuple(
        signed
        for number in map(Round, sorted(wanted))
        for signed in (*state.proposals.signed_in(number), *state.votes.signed_in(number))
    )
    return [SendTo(status.peer, messages)] if messages else []
