"""What the calls of the lab display."""

import pytest

from intuitor_lib.lab import display


@pytest.fixture
def shown(monkeypatch):
    """What is displayed from now on: its HTML, and the widget that it stands in for, if any."""
    found = []
    monkeypatch.setattr(
        display, "show", lambda parts, widget=None: found.append((display.join(parts), widget))
    )
    return found
