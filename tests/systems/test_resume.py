"""A run killed outright in any stage keeps the same heads and neurons as one that was left alone.

The runs are children of a process of their own, which imports once and never computes; each kills itself with
SIGKILL at a chosen point, and the next goes on in the same folder (COST-EFF page, 1.12: 14).
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

POINTS = (
    "training stage-1",
    "checkpoint stage-2",
    "training stage-3",
    "weights round-1",
    "training round-2",
    "scoring round-2",
    "training stage-5",
    "training stage-6",
    "judging stage-6",
)
"""What is going on, and where; judging, after the score is known and before it is written down."""

STEP = 3
"""Of five in a training; the last checkpoint is then one step old."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_anywhere_ends_as_any_other(tiny_checkpoint: Path, tmp_path: Path) -> None:
    data = tmp_path / "d.csv"
    data.write_text("text,label\n" + "".join(f"word{i % 3} thing {i},c{i % 3}\n" for i in range(240)))
    given = [str(tiny_checkpoint), str(data), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, __file__, *given], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    ends = json.loads(ran.stdout.splitlines()[-1])
    assert ends == {**dict.fromkeys(POINTS, -signal.SIGKILL), "killed": 0, "whole": 0}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shapes = [json.loads((place / "config.json").read_text())["shape"] for place in (whole, killed)]
    assert shapes[0] == shapes[1]
    assert [len(layer["heads"]) for layer in shapes[0]["layers"]] == [2, 2, 2]
    weights = [(place / "model.safetensors").read_bytes() for place in (whole, killed)]
    assert weights[0] == weights[1]
    records = [json.loads((place / "training.json").read_text())["training"] for place in (whole, killed)]
    assert [[stage["steps"] for stage in record] for record in records] == [[5, 5, 5, 20, 5, 5]] * 2
    assert all(stage["resumed"] for stage in records[1][4:])
    selected, after_kills = ([stage.get("selected") for stage in record] for record in records)
    assert selected == after_kills
    assert list(map(bool, selected)) == [True, False, True, False, False, True]
    assert shapes[0]["layers"][0]["rank"]["qkv"]


def main(checkpoint: str, data: str, folder: str) -> None:
    """Die at each point, go on after it, and come to an end; then once more without dying."""
    import transformers.trainer  # noqa: F401  # children find both imported

    import lessen.systems.pipeline  # noqa: F401

    ends = {point: _end(checkpoint, data, Path(folder, "killed"), point) for point in POINTS}
    ends |= {name: _end(checkpoint, data, Path(folder, name), None) for name in ("killed", "whole")}
    print(json.dumps(ends))


def _end(checkpoint: str, data: str, out: Path, point: str | None) -> int:
    """Exit code of a run, or minus the signal that ended it."""
    if not (child := os.fork()):
        try:
            _run(checkpoint, data, out, point)
        except BaseException as error:
            print(f"{point}: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run(checkpoint: str, data: str, out: Path, point: str | None) -> None:
    from lessen.systems import system_of
    from lessen.systems.pipeline import compress
    from lessen.systems.planning import plan_for

    system = system_of("cost-eff")
    recipe = {"batch_size": 32, "learning_rate": 1e-3, "rank": 0.5}
    choices = {"model": checkpoint, "data": data, "targets": ({"width": 0.5},), "selection_share": 0.1}
    plan = plan_for(system, seed=0, recipe=recipe, **choices)
    stages = tuple(stage.model_copy(update={"epochs": 1.0, "rows": None}) for stage in plan.stages)
    _instrument(point)
    compress(plan.model_copy(update={"stages": stages}), system, out, say=lambda _: None, quiet=True)


def _instrument(point: str | None) -> None:
    """Checkpoints every other step, and death at a point."""
    from transformers import Trainer

    from lessen.systems import milestone, pipeline, rounds, slimming
    from lessen.train import fine_tuning

    fine_tuning.STEPS_BETWEEN_CHECKPOINTS = 2
    where = {"now": ""}

    def dies(what: str, place: str) -> None:
        if point == f"{what} {place}":
            os.kill(os.getpid(), signal.SIGKILL)

    def at_step(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step == STEP:
            dies("training", where["now"])

    def in_checkpoint(self: Any, *given: Any) -> None:
        if self.state.global_step == 4:
            dies("checkpoint", where["now"])
        saves(self, *given)

    def trains(model: Any, data: Any, recipe: Any, folder: Path, **rest: Any) -> Any:
        where["now"] = folder.parent.name
        return fine_tune(model, data, recipe, folder, **rest)

    def scores(*given: Any, **rest: Any) -> Any:
        dies("scoring", where["now"])
        return worth_of(*given, **rest)

    def writes(tensors: Any, place: Path) -> None:
        save_file(tensors, place)
        dies("weights", place.parent.name)

    def judges(*given: Any) -> Any:
        judge, looks = judge_of(*given), iter(range(1, 100))

        def watched(model: Any) -> float:
            score = judge(model)
            if next(looks) == 2:
                dies("judging", where["now"])
            return score

        return watched

    judge_of = pipeline.judge_of
    saves, fine_tune, worth_of = Trainer._save_optimizer_and_scheduler, pipeline.fine_tune, slimming.worth_of
    save_file = milestone.save_file
    fine_tuning.Along.on_step_end = at_step
    Trainer._save_optimizer_and_scheduler = in_checkpoint
    pipeline.fine_tune = rounds.fine_tune = trains
    slimming.worth_of, milestone.save_file = scores, writes
    pipeline.judge_of = judges


if __name__ == "__main__":
    main(*sys.argv[1:])
