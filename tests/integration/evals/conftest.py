"""Real Inspect evaluations: small tasks, and a mock model that answers from the prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from organon.evals.target import EvalModel
from organon.store.store import Store

# Warnings of Inspect's own dependencies, by name; our tests turn every other one into an error.
INSPECT_WARNINGS = (
    "ignore:The 'initial' parameter is deprecated:DeprecationWarning",
    "ignore:Unclosed <MemoryObject:ResourceWarning",
)

TASKS = '''
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser
from inspect_ai.scorer import Score, accuracy, match, mean, scorer, stderr

def samples(n):
    return [Sample(id=i, input=f"say {i}", target=str(i)) for i in range(1, n + 1)]

@task
def echo(n: int = 5):
    return Task(dataset=samples(n), scorer=match())

@task
def hard(n: int = 4):
    return Task(dataset=[Sample(id=f"s{i}", input=f"hard {i}", target=str(i)) for i in range(n)], scorer=match())

@scorer(metrics={"tone": [mean()], "length": [mean()]})
def judge():
    async def score(state, target):
        nan = float("nan")
        return Score(value={"tone": 0.25, "length": nan if state.sample_id == 2 else len(state.output.completion)})
    return score

@task
def judged():
    return Task(dataset=samples(3), scorer=[match(), judge()])

@task
def chat():
    dialogue = [ChatMessageSystem(content="be brief"), ChatMessageUser(content="say 7")]
    return Task(dataset=[Sample(input=dialogue, target="7")], scorer=match())

@task
def unscored():
    return Task(dataset=samples(2))

@task
def broken():
    raise FileNotFoundError("words.txt")
'''


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in Path(item.fspath).parents:
            for warning in INSPECT_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A file of tasks: echo, hard, judged, chat, unscored, broken."""
    path = tmp_path / "tasks.py"
    path.write_text(TASKS)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


class Echo:
    """A mock model: repeats the last word; fails or answers wrongly where it is told to."""

    def __init__(self, fails: tuple[str, ...] = (), wrong: tuple[str, ...] = ()) -> None:
        self.fails, self.wrong = fails, wrong
        self.asked: list[str] = []

    def __call__(self, messages: list[Any], tools: Any, tool_choice: Any, config: Any) -> Any:
        from inspect_ai.model import ModelOutput, ModelUsage

        prompt = messages[-1].text
        self.asked.append(prompt)
        if prompt in self.fails:
            raise ValueError(f"cannot answer {prompt!r}")
        output = ModelOutput.from_content("mock", "wrong" if prompt in self.wrong else prompt.split()[-1])
        # Without it, mockllm counts tokens with a tokenizer that it downloads.
        output.usage = ModelUsage(input_tokens=10, output_tokens=2, total_tokens=12)
        return output

    def model(self, name: str = "model") -> EvalModel:
        return EvalModel.of_id(f"mockllm/{name}", custom_outputs=self)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def make_echo() -> type[Echo]:
    return Echo
