"""The ``lightning`` backend passes the contract that every backend passes (DL-10..18, MO-62)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.backends.contract import BackendContract, Case

from organon.backends.lightning.backend import LightningBackend

pytestmark = pytest.mark.slow


class TestLightning(BackendContract):
    @pytest.fixture
    def case(self, lab: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Case]:
        made: list[LightningBackend] = []

        def make() -> LightningBackend:
            monkeypatch.delenv("ORGANON_KILL_AT", raising=False)
            made.append(LightningBackend())
            return made[-1]

        def broken() -> LightningBackend:
            backend = make()
            monkeypatch.setenv("ORGANON_KILL_AT", "step:2")
            return backend

        yield Case(spec=lab.spec(), make=make, make_slow=make, break_it=broken, message="SIGKILL", mend=make)
        for job in (job for backend in made for job in backend._jobs.values()):
            if job.process is not None:
                job.process.kill()
                job.process.wait(10)
