"""What each of two processes does in `test_distributed`; writes what it saw to `<rank>.json`."""

import contextlib
import io
import json
import sys
from pathlib import Path
from unittest import mock

from intuitor_lib import Recipe
from intuitor_lib.cli import script
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.store.processes import from_main, join
from intuitor_lib.store.run_store import RunStore
from intuitor_lib.training import training


def main(recipe_file: Path, folder: Path) -> None:
    rank = join().process_index
    recipe = Recipe.from_json(recipe_file.read_text())
    seen = {"processes": join().num_processes}

    def command(name):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            status = script.main(["train", str(recipe_file), "--runs", str(folder / "whole")])
        seen[name] = {"status": status, "printed": printed.getvalue().splitlines()}

    command("first")
    with mock.patch.object(training, "load_policy", side_effect=AssertionError("loaded again")):
        command("second")

    steps = []

    class Interrupted(training.IntuitorTrainer):
        def training_step(self, *args, **kwargs):
            if self.state.global_step == 2 and 2 not in steps:
                steps.append(2)
                raise KeyboardInterrupt
            steps.append(self.state.global_step)
            return super().training_step(*args, **kwargs)

    with mock.patch.object(training, "IntuitorTrainer", Interrupted):
        with contextlib.suppress(KeyboardInterrupt):
            training.train(recipe, runs=folder / "broken")
        (broken,) = RunStore(folder / "broken")
        seen["interrupted"] = from_main([broken.status["state"], broken.steps])
        steps[:] = [2]
        run = training.train(recipe, runs=folder / "broken")
    seen["resumed"] = [run.finished, str(run.path), steps[1:]]

    def fails_on_the_other(recipe):
        if rank == 1:
            raise InputError("no such model here")
        return original(recipe)

    original = training.load_policy
    with mock.patch.object(training, "load_policy", fails_on_the_other):
        try:
            training.train(recipe, runs=folder / "failed")
        except (InputError, RuntimeError) as error:
            seen["failure"] = [type(error).__name__, str(error)]
    (folder / f"{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
