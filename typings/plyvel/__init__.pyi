from collections.abc import Iterator
from types import TracebackType

class Error(Exception): ...
class CorruptionError(Error): ...

class WriteBatch:
    def put(self, key: bytes, value: bytes) -> None: ...
    def delete(self, key: bytes) -> None: ...
    def __enter__(self) -> WriteBatch: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

class _Pairs(Iterator[tuple[bytes, bytes]]):
    def __enter__(self) -> _Pairs: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

class Snapshot:
    def get(self, key: bytes, *, verify_checksums: bool = ...) -> bytes | None: ...
    def iterator(
        self,
        *,
        start: bytes | None = ...,
        stop: bytes = ...,
        reverse: bool = ...,
        verify_checksums: bool = ...,
    ) -> _Pairs: ...
    def close(self) -> None: ...

class DB:
    def __init__(
        self,
        name: str,
        *,
        create_if_missing: bool = ...,
        paranoid_checks: bool = ...,
        write_buffer_size: int = ...,
        lru_cache_size: int = ...,
        max_open_files: int = ...,
        max_file_size: int = ...,
        bloom_filter_bits: int = ...,
        compression: str | None = ...,
    ) -> None: ...
    def get(self, key: bytes, *, verify_checksums: bool = ...) -> bytes | None: ...
    def write_batch(self, *, transaction: bool = ..., sync: bool = ...) -> WriteBatch: ...
    def iterator(
        self,
        *,
        start: bytes | None = ...,
        stop: bytes = ...,
        reverse: bool = ...,
        verify_checksums: bool = ...,
    ) -> _Pairs: ...
    def snapshot(self) -> Snapshot: ...
    def close(self) -> None: ...
