"""Sums and decisions over three real processes, connected by gloo on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from organon.backends.lightning import ranks as ranks_module
from organon.backends.lightning.launch import Place, place_of
from organon.backends.lightning.ranks import Ranks, joined, share_of
from organon.backends.lightning.stop import Stopped
from organon.errors import TrainingError

WORLD = 3


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([sys.executable, __file__, str(folder)], check=True, timeout=120, env=environment)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)]


def test_sums_are_those_of_all(answers: list[dict[str, Any]]) -> None:
    assert [a["sum"] for a in answers] == [[0 + 1 + 2, 30]] * WORLD


def test_a_flag_of_one_is_a_flag_of_all(answers: list[dict[str, Any]]) -> None:
    assert [a["any"] for a in answers] == [[True, False, True]] * WORLD


def test_rank_0_decides(answers: list[dict[str, Any]]) -> None:
    assert [a["same"] for a in answers] == [{"step": 7, "from": 0}] * WORLD
    assert [a["weights"] for a in answers] == [[0.0, 0.0]] * WORLD


def test_rank_0_goes_first(answers: list[dict[str, Any]]) -> None:
    assert [a["there"] for a in answers] == [False, True, True]


def test_gradients_are_added_up(answers: list[dict[str, Any]]) -> None:
    """Small ones in buckets, a large one alone, one in another precision, one that is not contiguous."""
    for answer in answers:
        for name, (found, expected) in answer["gradients"].items():
            assert found == expected, name


def test_a_rank_without_rows_counts_as_zero_and_a_dead_parameter_stays_dead(answers: list[dict[str, Any]]) -> None:
    """Rank 2 has no gradient of `idle`, none has one of `dead`: the guard must still see that."""
    assert [a["idle"] for a in answers] == [[3.0, 3.0]] * WORLD
    assert [a["dead"] for a in answers] == [None] * WORLD


def test_buckets_have_a_size(answers: list[dict[str, Any]]) -> None:
    """Five calls for seven tensors: a and b together, the large one alone, c and d, bfloat16 apart, and idle."""
    assert [a["calls"] for a in answers] == [5] * WORLD


def test_a_request_to_stop_reaches_all(answers: list[dict[str, Any]]) -> None:
    """Rank 0 alone was asked; the others hear of it between their micro-batches, of which each has another number."""
    assert [a["stopped"] for a in answers] == [True] * WORLD
    assert all(a["micro_batches"] < 1000 for a in answers)


def test_where_weights_are_sharded_all_stop_before_the_same_micro_batch(answers: list[dict[str, Any]]) -> None:
    assert [a["sharded_stop"] for a in answers] == [3] * WORLD


def test_a_sharded_tensor_becomes_whole_and_back(answers: list[dict[str, Any]]) -> None:
    assert [a["whole"] for a in answers] == [list(range(7)), [], []]  # rank 0 writes it
    assert [a["share"] for a in answers] == [[0, 10, 20], [30, 40, 50], [60]]


def test_a_single_process_needs_no_other() -> None:
    ranks, parameter = Ranks(), torch.nn.Parameter(torch.ones(2))
    values = torch.ones(1)
    assert ranks.sum(values) is values
    assert ranks.any(True, False) == (True, False)
    assert ranks.same(lambda: 5) == 5
    ranks.sum_gradients([parameter])
    ranks.barrier()
    assert parameter.grad is None
    with ranks.main_first():
        pass
    with pytest.raises(Stopped), ranks.together():
        raise Stopped

    def check() -> None: ...

    assert ranks.heeding(check) is check
    assert share_of(values, values) is values
    with joined(Place(), "cpu") as alone:
        assert alone == Ranks()
    assert not torch.distributed.is_initialized()


def test_a_process_that_nobody_joins_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks_module, "ARRIVAL", timedelta(seconds=1))
    server = socket.create_server(("127.0.0.1", 0))
    place = Place(0, 2, nodes=2, port=server.getsockname()[1], listener=server.detach())
    with pytest.raises(TrainingError, match="not all of 2 processes came within 1 s") as caught:
        joined(place, "cpu").__enter__()
    assert "srun --ntasks-per-node=1" in caught.value.fix


def test_a_place_survives_the_environment() -> None:
    place = Place(rank=3, world=8, local=1, node=1, nodes=4, host="10.0.0.1", port=1234)
    assert place_of(place.environment()) == place


# -- what the processes do -----------------------------------------------------------------------------


def work(place: Place, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with joined(place, "cpu") as ranks:
        rank = ranks.rank
        found["sum"] = ranks.sum(torch.tensor([rank, 10])).tolist()
        found["any"] = ranks.any(rank == 2, False, True)
        found["same"] = ranks.same(lambda: {"step": 7, "from": rank})
        weight = torch.nn.Parameter(torch.full((2,), float(rank)))
        ranks.same_weights([weight])
        found["weights"] = weight.tolist()
        with ranks.main_first():
            found["there"] = (folder / "made").exists()
            (folder / "made").touch()
        gradients(ranks, found)
        stops(ranks, found)
        sharded(ranks, found)
    return found


def gradients(ranks: Ranks, found: dict[str, Any]) -> None:
    ranks_module.BUCKET_BYTES = 64
    shapes = {"a": (2, 3), "b": (4,), "large": (100,), "c": (3, 2), "d": (2,)}
    parameters = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
    parameters["short"] = torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    for number, parameter in enumerate(parameters.values(), start=1):
        parameter.grad = torch.full_like(parameter, number * 10.0**ranks.rank)
    parameters["c"].grad = torch.arange(6.0).reshape(2, 3).t()
    parameters["idle"] = torch.nn.Parameter(torch.zeros(2))
    if ranks.rank != 2:
        parameters["idle"].grad = torch.full((2,), 1.0 + ranks.rank)
    parameters["dead"] = torch.nn.Parameter(torch.zeros(2))
    calls = 0
    real = torch.distributed.all_reduce

    def counted(tensor: torch.Tensor, **arguments: Any) -> Any:
        nonlocal calls
        calls += "async_op" in arguments
        return real(tensor, **arguments)

    torch.distributed.all_reduce = counted
    ranks.sum_gradients(parameters.values())
    torch.distributed.all_reduce = real
    found["calls"] = calls
    found["idle"] = parameters["idle"].grad.tolist()  # type: ignore[union-attr]
    found["dead"] = parameters["dead"].grad
    expected = {name: torch.full(p.shape, n * 111.0) for n, (name, p) in enumerate(parameters.items(), start=1)}
    expected["c"] = torch.arange(6.0).reshape(2, 3).t() * 3
    expected["short"] = torch.full((2,), 6 * 111.0, dtype=torch.bfloat16)
    found["gradients"] = {
        name: (parameters[name].grad.tolist(), expected[name].tolist())  # type: ignore[union-attr]
        for name in (*shapes, "short")
    }


def stops(ranks: Ranks, found: dict[str, Any]) -> None:
    asked = []

    def check() -> None:
        if asked:
            raise Stopped

    heeding = ranks.heeding(check)
    ranks.barrier()
    found["stopped"], done = False, 0
    try:
        with ranks.together():
            while done < 1000:
                heeding()
                done += 1
                if ranks.is_main and done == 3:
                    asked.append(True)
                torch.ones(200, 200).mm(torch.ones(200, 200))
    except Stopped:
        found["stopped"] = True
    found["micro_batches"] = done


def sharded(ranks: Ranks, found: dict[str, Any]) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    together = Ranks(ranks.rank, ranks.world, sharded=True, store=ranks.store)
    done = 0

    def check() -> None:
        if ranks.is_main and done == 3:
            raise Stopped

    heeding = together.heeding(check)
    try:
        while True:
            heeding()
            done += 1
    except Stopped:
        found["sharded_stop"] = done
    split = distribute_tensor(torch.arange(7), init_device_mesh("cpu", (ranks.world,)), [Shard(0)])
    found["whole"] = ranks.whole(split).tolist()
    found["share"] = share_of(torch.arange(7) * 10, split).to_local().tolist()  # type: ignore[attr-defined]


def main(folder: Path) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    children = []
    for rank in range(WORLD):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                listener = server.detach() if rank == 0 else None
                found = work(Place(rank, WORLD, local=rank, port=port, listener=listener), folder)
                (folder / f"{rank}.json").write_text(json.dumps(found))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
