"""What every training backend must do, alone and behind the cache.

A test module for a backend subclasses ``BackendContract`` and gives a ``case`` fixture. Import it as
``from tests.unit.backends.contract import BackendContract, Case, drain``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from organon.backends.base import Backend, JobState, JobStatus
from organon.backends.cached import CachedBackend
from organon.backends.training_run import TrainingRun
from organon.config.spec import TrainSpec, from_dict
from organon.errors import TrainingError
from organon.store.records import Checkpoint
from organon.store.store import Store

RUN_FILES = (
    "spec.json",
    "config.json",
    "training_run.json",
    "checkpoint.json",
    "metrics.jsonl",
    "status.json",
    "logs.txt",
)


@dataclass
class Case:
    """One backend under test. Each ``make`` is a new instance, as another process would have it."""

    spec: TrainSpec
    make: Callable[[], Backend]
    make_slow: Callable[[], Backend]  # its job still runs when submit returns
    break_it: Callable[[], Backend]  # its job for `spec` fails ...
    message: str  # ... with this in the error
    mend: Callable[[], Backend]  # and then the same spec succeeds


async def drain(backend: Backend, job_id: str, timeout_seconds: float = 120) -> list[JobStatus]:
    """Every status up to the final one."""
    seen = []
    async with asyncio.timeout(timeout_seconds):
        while True:
            seen.append(await backend.poll(job_id))
            if seen[-1].state.is_final:
                return seen
            await asyncio.sleep(0.02)


def count_submits(backend: Backend) -> list[str]:
    """The keys that ``backend.submit`` is called with from now on."""
    calls: list[str] = []
    submit = backend.submit

    async def counted(spec: TrainSpec, key: str, workdir: Path) -> str:
        calls.append(key)
        return await submit(spec, key, workdir)

    backend.submit = counted  # type: ignore[method-assign]
    return calls


class BackendContract:
    """Subclass it and give the fixture ``case``."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Store.open(tmp_path / "store")

    @pytest.fixture
    def workdir(self, tmp_path: Path) -> Path:
        folder = tmp_path / "work"
        folder.mkdir()
        return folder

    # -- alone --------------------------------------------------------------------------------------

    def test_is_a_backend(self, case: Case, store: Store) -> None:
        """MO-62, DL-13: the wrapper is a backend as well."""
        assert isinstance(case.make(), Backend)
        assert isinstance(CachedBackend(case.make(), store), Backend)

    def test_identity_is_json_and_covers_data_and_seed(self, case: Case) -> None:
        """MO-47."""
        backend = case.make()
        identity = backend.identity(case.spec)
        assert json.loads(json.dumps(identity)) == identity == case.make().identity(case.spec)
        for change in ({"seed": case.spec.seed + 1}, {"dataset_hash": "0" * 64}):
            assert backend.identity(dataclasses.replace(case.spec, **change)) != identity
        assert backend.identity(dataclasses.replace(case.spec, name="another-name")) == identity

    async def test_submit_is_idempotent_on_the_key(self, case: Case, workdir: Path) -> None:
        backend = case.make_slow()
        first = await backend.submit(case.spec, "a" * 64, workdir)
        assert await backend.submit(case.spec, "a" * 64, workdir) == first
        await backend.cancel(first)
        await drain(backend, first)

    async def test_job_runs_to_success_and_yields_a_checkpoint(self, case: Case, workdir: Path) -> None:
        backend = case.make()
        job_id = await backend.submit(case.spec, "a" * 64, workdir)
        *before, last = await drain(backend, job_id)
        assert last.state is JobState.SUCCEEDED
        assert last.model_id
        assert all(s.model_id is None and s.state in (JobState.PENDING, JobState.RUNNING) for s in before)
        checkpoint = await backend.fetch(job_id, workdir)
        assert checkpoint.model_id == last.model_id
        assert checkpoint.kind == "hosted" or (workdir / str(checkpoint.folder)).is_dir()
        assert (await backend.poll(job_id)).state is JobState.SUCCEEDED

    async def test_unknown_job_is_a_key_error(self, case: Case) -> None:
        with pytest.raises(KeyError):
            await case.make().poll("no-such-job")

    async def test_cancel_ends_the_job_and_may_be_repeated(self, case: Case, workdir: Path) -> None:
        backend = case.make_slow()
        job_id = await backend.submit(case.spec, "a" * 64, workdir)
        await backend.cancel(job_id)
        assert (await drain(backend, job_id))[-1].state is JobState.CANCELLED
        await backend.cancel(job_id)
        assert (await backend.poll(job_id)).state is JobState.CANCELLED

    # -- behind the cache ---------------------------------------------------------------------------

    async def test_submit_returns_at_once(self, case: Case, store: Store) -> None:
        """MO-19, MO-20, X-12: a job id and no model id while the job runs."""
        cached = CachedBackend(case.make_slow(), store)
        run = await cached.submit_run(case.spec)
        assert run.job_id
        assert run.model_id is None
        assert not await run.is_complete()
        await run.cancel()
        assert run.status == "cancelled"

    async def test_result_is_published_once_and_then_served(self, case: Case, store: Store) -> None:
        """MO-20, MO-23, MO-51..53, DL-17, X-11: cached, with the original job id."""
        cached = CachedBackend(case.make(), store)
        run = await cached.submit_run(case.spec)
        model_id = await run.wait()
        entry = store.find("runs", cached.key(case.spec))
        assert entry is not None
        assert {name for name in RUN_FILES if (entry.path / name).is_file()} == set(RUN_FILES)
        assert f"job {run.job_id} succeeded" in (entry.path / "logs.txt").read_text()
        checkpoint = from_dict(Checkpoint, entry.read_json("checkpoint.json"))
        assert checkpoint.model_id == model_id == run.model_id
        assert checkpoint.kind == "hosted" or model_id == f"organon/{entry.key}"
        assert checkpoint.kind == "hosted" or any((entry.path / str(checkpoint.folder)).iterdir())
        assert entry.read_json("config.json")["seed"] == case.spec.seed
        stored = await TrainingRun.load(entry.path / "training_run.json")
        assert (stored.job_id, await stored.wait(), stored.status) == (run.job_id, model_id, run.status)

        again = case.make()
        submits = count_submits(again)
        for _ in range(2):
            hit = await CachedBackend(again, store).submit_run(case.spec)
            assert (hit.cached, hit.job_id, hit.model_id) == (True, run.job_id, model_id)
            assert await hit.is_complete()
        assert submits == []
        assert not run.cached

    async def test_fetch_copies_the_published_checkpoint(self, case: Case, store: Store, tmp_path: Path) -> None:
        cached = CachedBackend(case.make(), store)
        key = await cached.submit(case.spec)
        await drain(cached, key)
        for _ in range(2):
            checkpoint = await cached.fetch(key, tmp_path / "copy")
            assert checkpoint.kind == "hosted" or any((tmp_path / "copy" / str(checkpoint.folder)).iterdir())

    async def test_failure_is_told_never_served_and_retried(self, case: Case, store: Store) -> None:
        """MO-23, DL-18."""
        cached = CachedBackend(case.break_it(), store)
        run = await cached.submit_run(case.spec)
        with pytest.raises(TrainingError, match=case.message) as caught:
            await run.wait()
        assert "failed" in str(caught.value)
        assert run.model_id is None
        assert store.find("runs", cached.key(case.spec)) is None
        assert [case.message in row.error for row in store.failures("runs", cached.key(case.spec))] == [True]

        mended = case.mend()
        submits = count_submits(mended)
        retried = await CachedBackend(mended, store).submit_run(case.spec)
        assert await retried.wait()
        assert len(submits) == 1

    async def test_eight_submitters_make_one_job(self, case: Case, store: Store) -> None:
        """C2: each with its own wrapper and store object, as eight clients have them."""
        backend = case.make()
        submits = count_submits(backend)
        wrappers = [CachedBackend(backend, Store.open(store.root)) for _ in range(8)]
        runs = await asyncio.gather(*(wrapper.submit_run(case.spec) for wrapper in wrappers))
        models = await asyncio.gather(*(run.wait() for run in runs))
        assert len(submits) == 1
        assert len(set(models)) == 1
        assert len({run.job_id for run in runs}) == 1

    async def test_another_process_attaches_to_a_running_job(self, case: Case, store: Store) -> None:
        first = await CachedBackend(case.make_slow(), store).submit_run(case.spec)
        other = case.make_slow()
        submits = count_submits(other)
        second = await CachedBackend(other, store).submit_run(case.spec)
        assert (submits, second.job_id) == ([], first.job_id)
        await second.cancel()
        assert second.status == "cancelled"

    async def test_success_before_a_crash_is_published_by_the_next_submit(self, case: Case, store: Store) -> None:
        """The caller died after the job had succeeded and before anything was published."""
        backend = case.make()
        cached = CachedBackend(backend, store)
        key = await cached.submit(case.spec)
        job = json.loads((store.staging("runs", key) / "submission.json").read_text())
        await drain(backend, job["job_id"])
        assert not store.place("runs", key).exists()

        other = case.make()
        submits = count_submits(other)
        run = await CachedBackend(other, store).submit_run(case.spec)
        assert await run.wait()
        assert (submits, run.job_id) == ([], job["job_id"])
        assert store.find("runs", key) is not None

    async def test_the_wrapper_leaves_the_backend_as_it_is(self, case: Case, store: Store) -> None:
        """DL-11, DL-13."""
        plain, wrapped = case.make(), case.make()
        before = set(vars(wrapped))
        run = await CachedBackend(wrapped, store).submit_run(case.spec)
        await run.wait()
        assert set(vars(wrapped)) == before == set(vars(plain))
        assert not [name for name in before if "cache" in name or "store" in name]

    def test_the_backend_name_is_part_of_the_key(self, case: Case, store: Store) -> None:
        """DL-14."""
        other = case.make()
        other.name = "other"
        assert CachedBackend(other, store).key(case.spec) != CachedBackend(case.make(), store).key(case.spec)
