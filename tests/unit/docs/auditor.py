"""An auditor's folder: the verifier alone, Python, and the one library that it names."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from docs import kanglian_verify

FILE = Path(kanglian_verify.__file__)
LIBRARIES = ("cryptography", "cffi", "_cffi_backend")
RUN = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_path({!r}, run_name='__main__')"
)


class Auditor:
    """Runs a copy of the verifier without the folder of the project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "site").mkdir(parents=True)
        for library in LIBRARIES:
            spec = find_spec(library)
            origin = Path(spec.origin)
            origin = origin.parent if spec.submodule_search_locations else origin
            (folder / "site" / origin.name).symlink_to(origin)
        (folder / "verify.py").write_bytes(FILE.read_bytes())

    def put(self, name: str, data: bytes) -> None:
        """A file in the folder."""
        (self.folder / name).write_bytes(data)

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output."""
        program = RUN.format(str(self.folder / "verify.py"))
        command = [sys.executable, "-I", "-S", "-c", program, str(self.folder / "site")]
        done = subprocess.run(
            [*command, *arguments], cwd=self.folder, capture_output=True, timeout=60, check=False
        )
        return done.returncode, (done.stdout + done.stderr).decode()
