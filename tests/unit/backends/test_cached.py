"""The cache around a backend: one job per key, published once, whatever dies when.

MO-22, MO-51, MO-52, DL-12..18, DL-41, DL-43, DL-45.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from tests.unit.backends.contract import count_submits, drain

from organon.backends.base import JobState, JobStatus
from organon.backends.cached import CachedBackend
from organon.backends.fake import FakeBackend
from organon.backends.job import Job
from organon.backends.training_run import TrainingRun
from organon.config.spec import BaseModel, TrainSpec, from_dict
from organon.errors import StoreError, TrainingError
from organon.store.records import Checkpoint
from organon.store.store import Store


class AdapterBackend(FakeBackend):
    """Like the local backend: what it yields is a folder, and it does not know the model's id."""

    name = "adapter"

    async def fetch(self, job_id: str, dest: Path) -> Checkpoint:
        await super().fetch(job_id, dest)
        (dest / "epoch_0").mkdir(exist_ok=True)
        (dest / "epoch_0" / "adapter_model.safetensors").write_bytes(b"weights")
        base = BaseModel(name="tiny", digest="d" * 64)
        return Checkpoint("adapter", "to be set by the cache", folder="epoch_0", base=base)


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """Log records from now on: level name, message and bound values."""
    found: list[dict[str, Any]] = []
    sink = logger.add(lambda m: found.append({"text": m.record["message"], **m.record["extra"]}), level="DEBUG")
    yield found
    logger.remove(sink)


def staged(store: Store, key: str, name: str) -> Any:
    return json.loads((store.root / "staging" / "runs" / key / name).read_text())


# -- what a run tells -----------------------------------------------------------------------------


async def test_metadata(store: Store, spec: TrainSpec) -> None:
    """MO-22."""
    cached = CachedBackend(FakeBackend(), store)
    spec = dataclasses.replace(spec, suffix="caps")
    for run in [await cached.submit_run(spec), await cached.submit_run(spec)]:
        expected = {
            "model": "tiny",
            "file_id": spec.dataset_hash,
            "dataset_hash": spec.dataset_hash,
            "hyperparameters": {"n_epochs": 2},
            "suffix": "caps",
            "key": cached.key(spec),
        }
        assert run.metadata.items() >= expected.items()
        assert (run.backend_type, run.model_id) == ("fake", "fake-model-1:caps")


async def test_an_instant_job_is_complete_when_submitted(store: Store, spec: TrainSpec) -> None:
    """DL-12: job 1, succeeded immediately; X-11: its id stays when the result is served again."""
    run = await CachedBackend(FakeBackend(), store).submit_run(spec)
    assert (run.job_id, run.model_id, run.status, run.cached) == ("fake-job-1", "fake-model-1", "succeeded", False)
    other = FakeBackend()
    await CachedBackend(other, store).submit_run(dataclasses.replace(spec, seed=7))
    hit = await CachedBackend(other, store).submit_run(spec)
    assert (hit.job_id, hit.model_id, hit.status, hit.cached) == ("fake-job-1", "fake-model-1", "succeeded", True)


async def test_one_numbering_clash_does_not_mix_up_keys(store: Store, spec: TrainSpec) -> None:
    """Two processes' fakes both have a fake-job-1: jobs are followed by key, not by number."""
    await CachedBackend(FakeBackend(), store).submit_run(spec)
    cached = CachedBackend(FakeBackend(steps_before_done=2), store)
    old = await cached.submit_run(spec)
    new = await cached.submit_run(dataclasses.replace(spec, suffix="new"))
    assert old.job_id == new.job_id == "fake-job-1"
    assert (await old.wait(), await new.wait()) == ("fake-model-1", "fake-model-1:new")


async def test_training_run_file_follows_the_job(store: Store, spec: TrainSpec) -> None:
    """MO-52, MO-53: rewritten on refresh while the job runs, then published; each change has its log line."""
    cached = CachedBackend(FakeBackend(steps_before_done=2), store)
    key = await cached.submit(spec)
    assert staged(store, key, "training_run.json")["status"] == "pending"
    await cached.poll(key)
    assert staged(store, key, "training_run.json")["status"] == "running"
    await drain(cached, key)
    entry = store.find("runs", key)
    assert entry is not None
    words = [line.split("job fake-job-1 ")[1] for line in (entry.path / "logs.txt").read_text().splitlines()]
    assert words == ["pending", "running", "succeeded"]
    assert entry.read_json("training_run.json").items() >= {"status": "succeeded", "model_id": "fake-model-1"}.items()


async def test_config_file(store: Store, spec: TrainSpec) -> None:
    """MO-51: the config that was given, else the spec's groups."""
    cached = CachedBackend(FakeBackend(steps_before_done=1), store)
    given = await cached.submit_run(spec, config={"output_dir": "elsewhere"})
    plain = await cached.submit_run(dataclasses.replace(spec, seed=3))
    assert staged(store, given.handle, "config.json") == {"output_dir": "elsewhere"}
    config = staged(store, plain.handle, "config.json")
    assert (config["seed"], config["optim"]["learning_rate"]) == (3, spec.optim.learning_rate)
    assert from_dict(TrainSpec, staged(store, plain.handle, "spec.json")).seed == 3


async def test_local_checkpoints_are_named_by_key(store: Store, spec: TrainSpec, tmp_path: Path) -> None:
    cached = CachedBackend(AdapterBackend(), store)
    run = await cached.submit_run(spec)
    assert run.model_id == f"organon/{cached.key(spec)}"
    entry = store.find("runs", run.handle)
    assert entry is not None
    assert entry.labels == {"model": "tiny", "name": "bright-otter", "backend": "adapter"}
    checkpoint = await cached.fetch(run.handle, tmp_path / "copy")
    assert (checkpoint.model_id, checkpoint.base) == (run.model_id, BaseModel(name="tiny", digest="d" * 64))
    copied = tmp_path / "copy" / "epoch_0" / "adapter_model.safetensors"
    assert copied.read_bytes() == b"weights"
    assert copied.stat().st_mode & 0o200, "a copy is not read-only as the store's files are"


async def test_fetch_before_success_is_refused(store: Store, spec: TrainSpec, tmp_path: Path) -> None:
    cached = CachedBackend(FakeBackend(steps_before_done=9), store)
    key = await cached.submit(spec)
    with pytest.raises(TrainingError, match="no checkpoint yet"):
        await cached.fetch(key, tmp_path)


async def test_unknown_keys_leave_no_trace(store: Store) -> None:
    cached = CachedBackend(FakeBackend(), store)
    for call in (cached.poll, cached.cancel):
        with pytest.raises(KeyError):
            await call("f" * 64)
    assert not list(store.root.glob("staging/runs/*"))


# -- hits and misses ------------------------------------------------------------------------------


async def test_log_lines_of_a_miss_and_a_hit(store: Store, spec: TrainSpec, lines: list[dict[str, Any]]) -> None:
    """DL-41: one line per decision."""
    cached = CachedBackend(FakeBackend(), store)
    key = cached.key(spec)
    await cached.submit_run(spec)
    assert [(line["key"], line["hit"]) for line in lines if "hit" in line] == [(key, False)]
    lines.clear()
    await CachedBackend(FakeBackend(), store).submit_run(spec)
    assert [(line["key"], line["level"], line["hit"]) for line in lines if "hit" in line] == [(key, "train", True)]


async def test_the_name_of_a_run_is_not_in_the_key(store: Store, spec: TrainSpec) -> None:
    cached = CachedBackend(FakeBackend(), store)
    await cached.submit_run(spec)
    assert (await cached.submit_run(dataclasses.replace(spec, name="other-name"))).cached
    assert not (await cached.submit_run(dataclasses.replace(spec, hyperparameters={"n_epochs": 3}))).cached


async def test_a_damaged_result_is_trained_again(store: Store, spec: TrainSpec) -> None:
    run = await CachedBackend(FakeBackend(), store).submit_run(spec)
    file = store.place("runs", run.handle) / "checkpoint.json"
    file.chmod(0o600)
    file.write_text(file.read_text().replace("fake-model-1", "fake-model-9"))
    backend = FakeBackend()
    submits = count_submits(backend)
    again = await CachedBackend(backend, store).submit_run(spec)
    assert (len(submits), again.cached, again.model_id) == (1, False, "fake-model-1")


async def test_without_reading_the_cache_a_new_result_replaces_the_old(store: Store, spec: TrainSpec) -> None:
    first = await CachedBackend(FakeBackend(), store).submit_run(spec)
    backend = FakeBackend(steps_before_done=1)
    await backend.submit(dataclasses.replace(spec, seed=9), "k", store.staging("runs", "k"))
    fresh = await CachedBackend(backend, store, read_cache=False).submit_run(spec)
    assert (fresh.cached, fresh.model_id) == (False, None)
    assert store.find("runs", first.handle) is not None, "the old result stays until there is a new one"
    assert await fresh.wait() == "fake-model-2"
    hit = await CachedBackend(FakeBackend(), store).submit_run(spec)
    assert (hit.cached, hit.model_id, hit.job_id) == (True, "fake-model-2", "fake-job-2")


# -- published exactly once -----------------------------------------------------------------------


async def test_eight_pollers_publish_once(store: Store, spec: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """DL-43: the only write of a result, however many wait for it."""
    published: list[str] = []
    publish = Store.publish

    def counted(self: Store, kind: Any, ident: Any, *args: Any, **kwargs: Any) -> Any:
        published.append(ident)
        return publish(self, kind, ident, *args, **kwargs)

    monkeypatch.setattr(Store, "publish", counted)
    backend = FakeBackend(steps_before_done=20)
    wrappers = [CachedBackend(backend, Store.open(store.root)) for _ in range(8)]
    runs = [await wrapper.submit_run(spec) for wrapper in wrappers]
    await asyncio.gather(*(run.wait(poll_seconds=0.001) for run in runs))
    assert published == [runs[0].handle]


async def test_a_poll_that_meets_another_process_publishing(
    store: Store, spec: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one renames the staging folder away while this one's backend looks into it."""
    ours, theirs = FakeBackend(steps_before_done=50), FakeBackend()
    mine = CachedBackend(ours, store)
    run = await mine.submit_run(spec)

    async def poll(job_id: str) -> JobStatus:
        assert (await CachedBackend(theirs, store).submit_run(spec)).model_id == "fake-model-1"
        await drain(CachedBackend(theirs, store), run.handle)
        raise FileNotFoundError(errno.ENOENT, "gone", "status.json")

    theirs.attach("fake-job-1", store.staging("runs", run.handle))
    theirs._jobs["fake-job-1"][0].polls_left = 0
    monkeypatch.setattr(ours, "poll", poll)
    assert (await run.wait(), run.status) == ("fake-model-1", "succeeded")


async def test_a_poll_while_another_process_is_publishing_waits_for_it(
    store: Store, spec: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its backend has cleared away what ours needs to take the job up; the folder is not yet renamed."""
    other = CachedBackend(FakeBackend(steps_before_done=1), store)
    key = (await other.submit_run(spec)).handle
    job = Job.read(store.staging("runs", key))
    assert job is not None
    mine = CachedBackend(FakeBackend(), store)
    with store.lock("runs", key):
        record = store.staging("runs", key) / "fake_job.json"
        record.rename(record.with_suffix(".away"))
        task = asyncio.create_task(mine.poll(key))
        await asyncio.sleep(0.2)
        assert not task.done()
        await other._publish(job, await other.backend.poll("fake-job-1"))
    assert (await task).model_id == "fake-model-1"


async def test_an_error_of_the_backend_is_not_swallowed(
    store: Store, spec: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = FakeBackend(steps_before_done=5)
    run = await CachedBackend(backend, store).submit_run(spec)

    async def poll(job_id: str) -> JobStatus:
        raise PermissionError(errno.EACCES, "no", "status.json")

    monkeypatch.setattr(backend, "poll", poll)
    with pytest.raises(PermissionError):
        await run.wait()


async def test_publishing_that_fails_can_be_repeated(
    store: Store, spec: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the worst moment: nothing is lost, and nothing is trained again."""
    backend = FakeBackend(steps_before_done=1)
    submits = count_submits(backend)
    cached = CachedBackend(backend, store)
    run = await cached.submit_run(spec)

    def full(*args: Any, **kwargs: Any) -> Any:
        raise StoreError("cannot write: No space left on device", code="CACHE-081")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", full)
        with pytest.raises(StoreError, match="No space"):
            await run.wait(poll_seconds=0.001)
    assert await run.wait() == "fake-model-1"
    assert await CachedBackend(FakeBackend(), store).poll(run.handle)
    assert len(submits) == 1


async def test_ctrl_c_does_not_cut_publishing_in_two(
    store: Store, spec: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is held until the thread that publishes has ended."""
    started, publish = asyncio.Event(), Store.publish
    loop = asyncio.get_running_loop()

    def slow(self: Store, *args: Any, **kwargs: Any) -> Any:
        import time

        loop.call_soon_threadsafe(started.set)
        time.sleep(0.2)
        assert self.holder("runs", args[1]) is not None
        return publish(self, *args, **kwargs)

    monkeypatch.setattr(Store, "publish", slow)
    cached = CachedBackend(FakeBackend(), store)
    task = asyncio.create_task(cached.submit_run(spec))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.find("runs", cached.key(spec)) is not None


# -- crashes and locks ----------------------------------------------------------------------------


class Refusing(FakeBackend):
    """Takes ``accepted`` jobs, and no more."""

    def __init__(self, *, accepted: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.accepted = accepted

    async def submit(self, spec: TrainSpec, key: str, workdir: Path) -> str:
        self.accepted -= 1
        if self.accepted < 0:
            raise ConnectionError("no route")
        return await super().submit(spec, key, workdir)


async def test_a_submission_that_fails_is_a_failed_job_for_all(store: Store, spec: TrainSpec) -> None:
    """Who follows the key would wait for ever otherwise; the next command starts it."""
    cached = CachedBackend(Refusing(), store)
    with pytest.raises(ConnectionError):
        await cached.submit_run(spec)
    key = cached.key(spec)
    status = await CachedBackend(FakeBackend(), store).poll(key)
    assert (status.state, status.error) == (JobState.FAILED, "ConnectionError: no route")
    assert staged(store, key, "training_run.json")["status"] == "failed"
    assert ["no route" in row.error for row in store.failures("runs", key)] == [True]
    assert await (await CachedBackend(FakeBackend(), store).submit_run(spec)).wait() == "fake-model-1"


async def test_a_retry_that_cannot_be_submitted_ends_the_wait_of_all(tmp_path: Path, spec: TrainSpec) -> None:
    clock = Clock()
    store = Store(tmp_path / "store", clock=clock)
    backend = Refusing(accepted=1, fail_with="node lost")
    run = await CachedBackend(backend, store, max_retries=1, retry_seconds=10).submit_run(spec)
    other = CachedBackend(FakeBackend(), store)
    assert (await other.poll(run.handle)).vendor_status == "retrying"
    clock.now += 11
    with pytest.raises(ConnectionError):
        await run.refresh()
    assert (await other.poll(run.handle)).state is JobState.FAILED


def dead_at_the_submission(store: Store, spec: TrainSpec) -> str:
    """What a process leaves that was killed while its backend was about to answer; the key."""
    cached = CachedBackend(FakeBackend(), store)
    key = cached.key(spec)
    folder = store.staging("runs", key)
    (folder / "spec.json").write_text(json.dumps(dataclasses.asdict(spec)))
    Job.for_spec(spec, key, "fake", 0).write(folder)
    return key


async def test_a_dead_submitters_job_is_started_by_who_follows_it(store: Store, spec: TrainSpec) -> None:
    key = dead_at_the_submission(store, spec)
    backend = FakeBackend()
    submits = count_submits(backend)
    cached = CachedBackend(backend, store)
    with store.lock("runs", key):  # it lives, and is at it
        assert (await cached.poll(key)).state is JobState.PENDING
        assert not submits
    runs = [TrainingRun("", backend=cached, handle=key) for _ in range(3)]
    assert set(await asyncio.gather(*(run.wait(poll_seconds=0.01) for run in runs))) == {"fake-model-1"}
    assert len(submits) == 1


async def test_cancelling_a_dead_submitters_job(store: Store, spec: TrainSpec) -> None:
    key = dead_at_the_submission(store, spec)
    cached = CachedBackend(FakeBackend(), store)
    await cached.cancel(key)
    assert (await cached.poll(key)).state is JobState.CANCELLED


async def test_a_job_its_backend_has_forgotten_is_started_again(store: Store, spec: TrainSpec) -> None:
    run = await CachedBackend(FakeBackend(steps_before_done=9), store).submit_run(spec)
    (store.staging("runs", run.handle) / "fake_job.json").unlink()
    with pytest.raises(KeyError, match="fake-job-1"):
        await CachedBackend(FakeBackend(), store).poll(run.handle)
    assert await (await CachedBackend(FakeBackend(), store).submit_run(spec)).wait() == "fake-model-1"


async def test_a_job_that_failed_unseen_is_recorded_and_started_again(store: Store, spec: TrainSpec) -> None:
    """Its caller died before it could see the failure."""
    backend = FakeBackend(steps_before_done=1, fail_with="node lost", fail_jobs=1)
    run = await CachedBackend(backend, store).submit_run(spec)
    await drain(backend, run.job_id)
    again = await CachedBackend(backend, store).submit_run(spec)
    assert await again.wait() == "fake-model-2"
    assert ["node lost" in row.error for row in store.failures("runs", run.handle)] == [True]


async def test_waiting_for_a_lock_lets_the_event_loop_run(
    store: Store, spec: TrainSpec, lines: list[dict[str, Any]]
) -> None:
    """C4: and whoever waits says so, once (CACHE-082)."""
    cached = CachedBackend(FakeBackend(), store)
    with store.lock("runs", cached.key(spec)):
        task = asyncio.create_task(cached.submit_run(spec))
        for _ in range(5):
            await asyncio.sleep(0.05)
        assert not task.done()
    assert (await task).model_id == "fake-model-1"
    assert len([line for line in lines if "CACHE-082 waiting for pid" in line["text"]]) == 1


PROCESS = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = sys.argv[3].split(":")
from organon.backends.cached import CachedBackend
from organon.backends.fake import FakeBackend
from organon.backends.job import Job
from organon.config.spec import TrainSpec, from_dict
from organon.store.store import Store
import json

class Noted(FakeBackend):
    async def submit(self, spec, key, workdir):
        with open(sys.argv[2], "a") as file:
            file.write(key + "\\n")
        return await super().submit(spec, key, workdir)

async def main():
    cached = CachedBackend(Noted(steps_before_done=3), Store.open(sys.argv[1]))
    run = await cached.submit_run(from_dict(TrainSpec, json.load(sys.stdin)))
    print(run.job_id, await run.wait(poll_seconds=0.01))

asyncio.run(main())
"""


async def test_four_processes_make_one_job(store: Store, spec: TrainSpec, tmp_path: Path) -> None:
    """C2: and all four get its result."""
    noted = tmp_path / "submits.txt"
    command = [sys.executable, "-c", PROCESS, str(store.root), str(noted), ":".join(sys.path)]
    text = json.dumps(dataclasses.asdict(spec)).encode()
    pipe = subprocess.PIPE
    children = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(4)]
    told = await asyncio.gather(*(child.communicate(text) for child in children))
    assert {out for out, _ in told} == {b"fake-job-1 fake-model-1\n"}, told
    assert len(noted.read_text().splitlines()) == 1


# -- failures, retries, cancelling ----------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_retries_are_bounded_back_off_and_are_counted(tmp_path: Path, spec: TrainSpec) -> None:
    """DL-45."""
    clock = Clock()
    store = Store(tmp_path / "store", clock=clock)
    backend = FakeBackend(fail_with="node lost")
    submits = count_submits(backend)
    cached = CachedBackend(backend, store, max_retries=2, retry_seconds=10)
    run = await cached.submit_run(spec)
    counts = []
    for seconds in (9.9, 0.2, 19.7, 0.4):
        assert (run.status, run.state, run.metadata["error"]) == ("retrying", JobState.PENDING, "node lost")
        clock.now += seconds
        await run.refresh()
        await run.refresh()
        counts.append((len(submits), run.metadata["retries"]))
    assert counts == [(1, 0), (2, 1), (2, 1), (3, 2)]
    with pytest.raises(TrainingError, match="node lost"):
        await run.wait()
    assert run.job_id == "fake-job-3"
    assert len(store.failures("runs", run.handle)) == 3
    assert staged(store, run.handle, "training_run.json")["metadata"]["retries"] == 2


@pytest.mark.parametrize(("killed", "jobs"), [(True, 3), (False, 1)])
async def test_only_what_was_killed_is_restarted(tmp_path: Path, spec: TrainSpec, killed: bool, jobs: int) -> None:
    """DL-45: a failure of the job's own would come again."""

    class Mortal(FakeBackend):
        async def poll(self, job_id: str) -> JobStatus:
            status = await super().poll(job_id)
            return dataclasses.replace(status, killed=killed and status.state is JobState.FAILED)

    store, backend = Store.open(tmp_path / "store"), Mortal(fail_with="node lost")
    submits = count_submits(backend)
    run = await CachedBackend(backend, store, max_restarts=2, retry_seconds=0).submit_run(spec)
    with pytest.raises(TrainingError, match="node lost"):
        await run.wait(poll_seconds=0.01)
    assert (len(submits), run.metadata["retries"]) == (jobs, jobs - 1)


async def test_a_retry_that_succeeds_is_published_with_its_count(tmp_path: Path, spec: TrainSpec) -> None:
    """DL-45: and another process can be the one that starts it."""
    store = Store.open(tmp_path / "store")
    first = CachedBackend(FakeBackend(fail_with="node lost", fail_jobs=1), store, max_retries=1, retry_seconds=0)
    run = await first.submit_run(spec)
    await run.save(tmp_path / "run.json")
    other = CachedBackend(FakeBackend(), store, max_retries=1, retry_seconds=0)
    loaded = await TrainingRun.load(tmp_path / "run.json", other)
    assert await loaded.wait(poll_seconds=0.01) == "fake-model-1"
    hit = await other.submit_run(spec)
    assert (hit.cached, hit.metadata["retries"]) == (True, 1)


async def test_an_old_failure_is_not_blamed_on_the_next_attempt(
    store: Store, spec: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend may name every attempt alike: meanwhile another process started the job again."""

    class Alike(FakeBackend):
        def _start(self, spec: TrainSpec, key: str) -> Any:
            self._jobs.clear()
            return dataclasses.replace(super()._start(spec, key), job_id="the-job")

    ours = Alike(steps_before_done=2, fail_with="node lost")
    run = await CachedBackend(ours, store).submit_run(spec)
    theirs = Alike(steps_before_done=5)
    poll = ours.poll

    async def overtaken(job_id: str) -> JobStatus:
        status = await poll(job_id)
        if status.state is JobState.FAILED:
            monkeypatch.setattr(ours, "poll", theirs.poll)
            monkeypatch.setattr(ours, "fetch", theirs.fetch)
            await CachedBackend(theirs, store).submit_run(spec)
        return status

    monkeypatch.setattr(ours, "poll", overtaken)
    assert await run.wait(poll_seconds=0.001) == "fake-model-1"
    assert len(store.failures("runs", run.handle)) == 1


async def test_no_retry_unless_asked(store: Store, spec: TrainSpec) -> None:
    backend = FakeBackend(fail_with="bad data")
    submits = count_submits(backend)
    run = await CachedBackend(backend, store).submit_run(spec)
    assert (run.status, len(submits)) == ("failed", 1)
    await run.refresh()
    assert len(submits) == 1


async def test_a_failure_is_still_known_to_another_process(store: Store, spec: TrainSpec, tmp_path: Path) -> None:
    """DL-18: its staging folder is kept, for the next attempt to resume from."""
    run = await CachedBackend(FakeBackend(fail_with="bad data"), store).submit_run(spec)
    status = await CachedBackend(FakeBackend(), store).poll(run.handle)
    assert (status.state, status.error) == (JobState.FAILED, "bad data")
    assert "failed: bad data" in (store.root / "staging" / "runs" / run.handle / "logs.txt").read_text()


async def test_a_cancelled_job_is_not_served(store: Store, spec: TrainSpec) -> None:
    """DL-18, MO-26."""
    cached = CachedBackend(FakeBackend(steps_before_done=100), store, max_retries=3)
    run = await cached.submit_run(spec)
    await run.cancel()
    assert (run.status, run.model_id) == ("cancelled", None)
    with pytest.raises(TrainingError, match="cancelled"):
        await run.wait()
    assert store.find("runs", run.handle) is None
    await cached.cancel(run.handle)
    backend = FakeBackend()
    assert (await CachedBackend(backend, store).submit_run(spec)).model_id == "fake-model-1"


async def test_cancelling_a_job_that_waits_for_its_retry(store: Store, spec: TrainSpec) -> None:
    backend = FakeBackend(fail_with="node lost")
    run = await CachedBackend(backend, store, max_retries=3, retry_seconds=60).submit_run(spec)
    assert run.status == "retrying"
    await run.cancel()
    assert run.status == "cancelled"


async def test_cancelling_what_has_ended_changes_nothing(store: Store, spec: TrainSpec) -> None:
    run = await CachedBackend(FakeBackend(), store).submit_run(spec)
    await run.cancel()
    assert (run.status, run.model_id) == ("succeeded", "fake-model-1")


def test_a_hit_imports_nothing_heavy(store: Store, spec: TrainSpec, tmp_path: Path) -> None:
    asyncio.run(CachedBackend(FakeBackend(steps_before_done=3), store).submit_run(spec))
    asyncio.run(drain(CachedBackend(FakeBackend(), store), CachedBackend(FakeBackend(), store).key(spec)))
    heavy = "torch", "numpy", "pandas", "inspect_ai", "wandb", "matplotlib", "transformers"
    code = PROCESS.replace("asyncio.run(main())", f"asyncio.run(main()); print({set(heavy)!r} & set(sys.modules))")
    command = [sys.executable, "-c", code, str(store.root), str(tmp_path / "n"), ":".join(sys.path)]
    done = subprocess.run(
        command, input=json.dumps(dataclasses.asdict(spec)), capture_output=True, text=True, check=True
    )
    assert done.stdout == "fake-job-1 fake-model-1\nset()\n"
