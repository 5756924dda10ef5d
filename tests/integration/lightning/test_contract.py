"""The training backend contract, for `lightning`: with real workers, forked from a server to start quickly."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from organon.backends.lightning import backend as module
from organon.backends.lightning.backend import LightningBackend
from tests.unit.backends.contract import BackendContract, Case


class TestLightning(BackendContract):
    @pytest.fixture
    def case(self, lab: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
        monkeypatch.setattr(module, "_spawn", lab.spawn)
        spec = lab.spec(epochs=1)
        content = Path(spec.dataset_path).read_text()

        def broken() -> LightningBackend:
            Path(spec.dataset_path).write_text("{}")
            return LightningBackend()

        def mended() -> LightningBackend:
            Path(spec.dataset_path).write_text(content)
            return LightningBackend()

        def slow() -> LightningBackend:
            # A worker needs a second to be ready, so a job still runs when submit returns.
            return LightningBackend()

        yield Case(
            spec=dataclasses.replace(spec, name="warm-otter"),
            make=LightningBackend,
            make_slow=slow,
            break_it=broken,
            message="DATA-028",
            mend=mended,
        )
        Path(spec.dataset_path).write_text(content)
