"""A training beside a live kernel: what a front end is sent, and what a restart leaves."""

import time

import pytest
from jupyter_client.manager import start_new_kernel

from intuitor_lib.store import RunStore

pytestmark = pytest.mark.slow
VIEW = "application/vnd.jupyter.widget-view+json"


class Frontend:
    """A front end with a person at it: executes cells, and keeps what the kernel sends."""

    def __init__(self):
        self.manager, self.client = start_new_kernel()
        self.messages = []

    def run(self, code):
        """Execute a cell; what it displayed. Errors fail the test."""
        request, before = self.client.execute(code, allow_stdin=True), len(self.messages)
        self.until(
            lambda m: (
                m["parent_header"].get("msg_id") == request
                and m["content"].get("execution_state") == "idle"
            ),
            120,
        )
        sent = self.messages[before:]
        assert not [m for m in sent if m["msg_type"] == "error"], sent
        return [m["content"] for m in sent if m["msg_type"] == "display_data"]

    def until(self, wanted, seconds):
        """The first message from now on that is `wanted`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = self.client.get_iopub_msg(timeout=max(0.1, end - time.monotonic()))
            self.messages.append(message)
            if wanted(message):
                return message
        raise AssertionError("no such message")

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def frontends():
    """Makes front ends, each with a kernel of its own."""
    made = []

    def make():
        made.append(Frontend())
        return made[-1]

    yield make
    for frontend in made:
        frontend.close()


def says(text):
    """Whether a message sets a widget's text."""
    return lambda m: (
        m["msg_type"] == "comm_msg"
        and text in str(m["content"]["data"].get("state", {}).get("value", ""))
    )


def test_a_panel_follows_its_training_over_a_restart_and_in_two_notebooks(
    tiny_recipe, tmp_path, frontends
):
    file = tmp_path / "recipe.json"
    file.write_text(tiny_recipe.replace(max_steps=300).to_json())
    begin = (
        "import intuitor_lib as intuitor\n"
        f"recipe = intuitor.Recipe.from_json(open({str(file)!r}).read())\n"
        f"training = intuitor.start(recipe, runs={str(tmp_path / 'runs')!r})"
    )
    first = frontends()
    shown, _ = first.run(begin)
    assert VIEW in shown["data"]
    assert "text/html" in shown["data"]
    # No cell runs, and the panel moves on.
    first.until(says("running"), 60)
    (run,) = RunStore(tmp_path / "runs")
    while run.steps < 2:
        time.sleep(0.1)
    first.manager.restart_kernel(now=True)
    steps = run.steps
    assert run.status["state"] == "running"
    second = frontends()
    shown, _ = second.run(
        "import intuitor_lib as intuitor\n"
        f"training = intuitor.watch({run.id!r}, runs={str(tmp_path / 'runs')!r})"
    )
    assert VIEW in shown["data"]
    second.until(says("running"), 30)
    assert run.steps > steps
    second.run("training.stop()")
    second.until(says("interrupted"), 60)
    assert run.status["state"] == "interrupted"


def test_a_finished_training_leaves_a_figure_in_its_notebook(tiny_recipe, tmp_path, frontends):
    file = tmp_path / "recipe.json"
    file.write_text(tiny_recipe.to_json())
    one = frontends()
    one.run(
        "import intuitor_lib as intuitor\n"
        f"recipe = intuitor.Recipe.from_json(open({str(file)!r}).read())\n"
        f"training = intuitor.start(recipe, runs={str(tmp_path / 'runs')!r})"
    )
    updated = [one.until(lambda m: m["msg_type"] == "update_display_data", 90) for _ in range(2)]
    text, figure = (message["content"]["data"] for message in updated)
    assert VIEW not in text
    assert "finished" in text["text/html"]
    assert figure["image/png"]
