"""Lightning's view of the ranks: it knows of all processes, and leaves starting, wrapping and summing to us.

Lightning's own strategies wrap the module: torch's DistributedDataParallel takes the mean over processes and
expects the same number of forward passes in each. Our loss is normalised over the whole step, however its
rows are dealt out, so its gradients are added up (`Ranks.sum_gradients`).
"""

from __future__ import annotations

import signal
from typing import Any

from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from organon.backends.lightning.launch import Place


def trainer_arguments(place: Place) -> dict[str, Any]:
    """What a ``Trainer`` is told of the ranks."""
    per_node = place.world // place.nodes
    return {
        "strategy": RanksStrategy(place),
        "devices": per_node,
        "num_nodes": place.nodes,
        "use_distributed_sampler": False,
    }


class RanksStrategy(DDPStrategy):  # type: ignore[misc]  # mypy does not follow lightning
    """One device for each process; the process group is there already (`ranks.joined`)."""

    def __init__(self, place: Place) -> None:
        super().__init__(cluster_environment=Environment(place))
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def _configure_launcher(self) -> None:
        """None: all processes are there. Its parent's would also set another number of threads than ours."""

    def configure_ddp(self) -> None:
        """Nothing: the module is not wrapped."""

    def barrier(self, name: str | None = None, *args: Any, **kwargs: Any) -> None:
        """As its parent.

        The first one follows on Lightning's own signal handlers, of which that for SIGTERM is a
        collective: a rank that alone gets the signal would hang in it. So the ones before are put back.
        """
        if name == "run-stage":
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        super().barrier()

    def teardown(self) -> None:
        """Leave model and optimizer on their device: a training that was stopped writes a checkpoint now."""
        self.accelerator.teardown()


class Environment(ClusterEnvironment):  # type: ignore[misc]  # mypy does not follow lightning
    """The ranks as `launch` has started them."""

    creates_processes_externally = True

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place

    @property
    def main_address(self) -> str:
        return self._place.host

    @property
    def main_port(self) -> int:
        return self._place.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._place.world

    def set_world_size(self, size: int) -> None:
        """Not Lightning's to set."""

    def global_rank(self) -> int:
        return self._place.rank

    def set_global_rank(self, rank: int) -> None:
        """Not Lightning's to set."""

    def local_rank(self) -> int:
        return self._place.local

    def node_rank(self) -> int:
        return self._place.node
