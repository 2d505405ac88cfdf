"""Progress: bars on a terminal, events for a batch runner."""

import json
import time

from intuitor_lib.report.progress import VARIABLE, LiveTraining, track, watch

ROW = {"step": 1, "rewards/self_certainty/mean": 9.5, "completions/mean_length": 12.0}


def test_a_bar_goes_to_standard_error(capsys, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert list(track(range(3), total=3, label="count")) == [0, 1, 2]
    live = LiveTraining("train x", 2)
    live.update([ROW])
    live.close("done")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "train x:  50%" in captured.err
    assert "self-certainty 9.5" in captured.err


def test_in_batch_events_are_written_and_drawn(tmp_path, monkeypatch, capsys):
    file = tmp_path / "progress.jsonl"
    monkeypatch.setenv(VARIABLE, str(file))
    with watch(file):
        list(track("ab", total=2, label="generate"))
        live = LiveTraining("train y", 4)
        live.update([ROW])
        live.close("done")
        time.sleep(0.7)
        live.update([{**ROW, "step": 4}])
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(e["label"], e["done"], e["total"]) for e in events] == [
        ("generate", 1, 2),
        ("generate", 2, 2),
        ("train y", 1, 4),
        ("train y", 4, 4),
    ]
    err = capsys.readouterr().err
    assert "generate" in err
    assert "train y: 100%" in err
    # One bar for the whole training, so its rate and remaining time are right.
    assert err.count("train y:   0%") == 1
