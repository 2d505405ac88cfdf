"""The workers in which math-verify runs: they end, are replaced, and mix up no verdicts."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from intuitor_lib.grading import equivalence
from intuitor_lib.grading.cores import cores
from intuitor_lib.grading.equivalence import equivalent, readable

ROOT = Path(__file__).parents[2]
BOMB = r"10^{10^{10}}"  # one integer power inside C code, which no signal handler interrupts


def same(answer, gold):
    return equivalent([(answer, gold)])[0]


def gone(pid):
    """Whether the process ends within a generous while; a zombie has ended."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False


def run_script(source, *arguments):
    """Run `source` as a script of another process: (standard output, standard error)."""
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout, done.stderr


@pytest.fixture
def worker_pid():
    """The process that grades the next pair."""
    assert same("1+x", "x+1")
    return equivalence._POOL.idle.queue[-1].process.pid


class TestReadable:
    @pytest.mark.parametrize(
        ("answer", "verdict"),
        [
            ("-1,234.5", True),
            ("Evelyn", True),
            (r"\text{(C)}", True),
            ("C", True),
            (r"\frac{3}{4}", True),
            (r"x \in [1, 2]", True),
            (r"\{1, 2\}", True),
            ("y = 2x + 1", True),
            (None, False),
            ("", False),
            (" ", False),
            (r"\frac{3}{", False),
            (r"(\frac{1}{8}, 3) + 1", False),
            ("1 +", False),
            ("\0", False),
            ("7" * 3000, False),
            (BOMB, False),
        ],
    )
    def test_reading(self, answer, verdict):
        assert readable([answer]) == [verdict]

    def test_numbers_and_words_need_no_worker(self, monkeypatch):
        monkeypatch.delattr(equivalence, "_POOL")
        assert readable(["5", "3/4", "east", r"\text{(A)}", None]) == [True] * 4 + [False]


class TestWorkers:
    def test_one_that_hangs_without_computing_is_replaced(self, monkeypatch, worker_pid):
        os.kill(worker_pid, signal.SIGSTOP)
        with monkeypatch.context() as changed:
            changed.setattr(equivalence, "WALL_FACTOR", 1)
            assert not same("2+x", "x+2")
        assert gone(worker_pid)
        assert same("2+x", "x+2")

    def test_one_that_died_idle_is_replaced(self, worker_pid):
        os.kill(worker_pid, signal.SIGKILL)
        assert gone(worker_pid)
        assert same("2+x", "x+2")

    def test_one_survives_an_interrupt(self, worker_pid):
        os.kill(worker_pid, signal.SIGINT)
        assert same("3+x", "x+3")
        assert equivalence._POOL.idle.queue[-1].process.pid == worker_pid
        assert os.getsid(worker_pid) == worker_pid  # no Ctrl-C of a terminal or kernel reaches it

    def test_memory_is_limited(self, worker_pid):
        limits = Path(f"/proc/{worker_pid}/limits")
        if not limits.exists():
            pytest.skip("needs /proc to read the limits of another process")
        [line] = [x for x in limits.read_text().splitlines() if x.startswith("Max address space")]
        assert line.split()[3] == str(2 * 1024**3)

    def test_threads_get_their_own_verdicts(self):
        verdicts = {}

        def work(n):
            pairs = [(f"{n}+{k}x", f"{k + k % 2}x+{n}") for k in range(2, 12)]
            verdicts[n] = equivalent(pairs)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert verdicts == {n: [True, False] * 5 for n in range(1, 5)}
        assert equivalence._POOL.idle.qsize() == cores()

    def test_interrupted_grading_leaves_no_stale_reply(self, monkeypatch, worker_pid):
        reply = equivalence._Worker._reply

        def interrupted(worker, seconds):
            raise KeyboardInterrupt

        monkeypatch.setattr(equivalence._Worker, "_reply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            same("2+x", "x+2")
        monkeypatch.setattr(equivalence._Worker, "_reply", reply)
        assert not same("3+x", "x+4")
        assert gone(worker_pid)

    def test_start_that_fails_raises_and_says_why(self, monkeypatch, tmp_path):
        (tmp_path / "math_verify.py").write_text("raise ImportError('broken on purpose')")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(equivalence, "_POOL", equivalence._Pool())
        with pytest.raises(RuntimeError, match=r"broken on purpose.*pip install math-verify"):
            same("2+x", "x+2")

    @pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)"])
    def test_end_with_the_script_that_has_no_main_guard(self, end):
        source = f"""
import os, signal, threading, time
from intuitor_lib.grading import equivalence
print("started", flush=True)
assert equivalence.equivalent([("1+x", "x+1")]) == [True]
print(equivalence._POOL.idle.queue[-1].process.pid, flush=True)
{end}
"""
        output, errors = run_script(source)
        started, pid = output.split()
        assert (started, errors) == ("started", "")
        assert gone(int(pid))

    def test_busy_one_ends_after_its_parent(self):
        source = f"""
import os, threading, time
from intuitor_lib.grading import equivalence
equivalence.equivalent([("1+x", "x+1")])
print(equivalence._POOL.idle.queue[-1].process.pid, flush=True)
bomb = [("{BOMB}", "x+1")]
threading.Thread(target=equivalence.equivalent, args=[bomb]).start()
time.sleep(0.3)
os._exit(0)
"""
        output, errors = run_script(source)
        assert errors == ""
        assert gone(int(output))

    def test_forked_child_starts_its_own(self):
        source = """
import os
from intuitor_lib.grading import equivalence
equivalence.equivalent([("1+x", "x+1")])
child = os.fork()
shared = not child and any(equivalence._POOL.idle.queue)
shift = 0 if child else 1
pairs = [(f"{k}+x", f"x+{k + shift * (k % 2)}") for k in range(20)]
verdicts = equivalence.equivalent(pairs)
right = verdicts == [not (shift and k % 2) for k in range(20)]
if not child:
    equivalence._POOL.close()
    os._exit(bool(shared) or not right)
print(right, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
        assert run_script(source) == ("True 0\n", "")

    def test_import_loads_neither_torch_nor_sympy(self):
        source = """
import sys
import intuitor_lib.grading.equivalence
print({"torch", "sympy", "math_verify", "numpy"} & set(sys.modules))
"""
        assert run_script(source) == ("set()\n", "")


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        (r"\frac{2}{8}", r"\frac{1}{4}", True),
        (r"\frac14", "1/4", True),
        (r"-\dfrac{3}{4}", r"\frac{-3}{4}", True),
        (r"\frac{-3}{4}", "-0.75", True),
        (r"-\frac{-3}{4}", "3/4", True),
        (r"\tfrac{ 6 }{ 2 }", "3", True),
        (r"\frac{1}{4}", r"\frac{1}{5}", False),
        (r"\frac{3}{4}", r"-\frac{3}{4}", False),
        (r"\frac{1}{3}", "0.333", False),
        (r"\frac{1}{3}", "0.33333333", True),
        (r"\left(14, \frac{94}{2}\right)", "(14,47)", True),
        ("(1, -0.5)", r"\left(1, -\frac12\right)", True),
        ("(1, 2)", "(2, 1)", False),
        ("(1, 2, 3)", "(1, 2)", False),
    ],
)
def test_fractions_and_tuples_of_integers_need_no_worker(answer, gold, equal, monkeypatch):
    monkeypatch.setattr(equivalence, "_POOL", None)
    assert equivalence.equivalent([(answer, gold)]) == [equal]


@pytest.mark.parametrize("answer", ["(x, 2)", "[1, 2]", "(1, 2]", "\\{1, 2\\}", "(1, 2), (3, 4)"])
def test_other_tuples_do(answer, monkeypatch):
    monkeypatch.setattr(equivalence, "_POOL", None)
    with pytest.raises(AttributeError):
        equivalence.equivalent([(answer, "(1, 2)")])


@pytest.mark.parametrize("answer", [r"\frac{1}{0}", r"\frac10", r"\frac{x}{4}", r"2\frac{7}{4}"])
def test_other_fractions_do(answer, monkeypatch):
    monkeypatch.setattr(equivalence, "_POOL", None)
    with pytest.raises(AttributeError):
        equivalence.equivalent([(answer, "1/4")])
