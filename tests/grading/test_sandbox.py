"""What programs get from the sandbox, and what hostile ones may not do. Linux only."""

import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from intuitor_lib.grading.sandbox import confine
from intuitor_lib.grading.sandbox.confine import Protections, SandboxError, run_python

ROOT = Path(__file__).parents[2]
SLACK = 30.0  # seconds for starting and ending a program on a busy machine


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def children():
    tasks = Path("/proc/self/task").iterdir()
    return [pid for task in tasks for pid in (task / "children").read_text().split()]


def marked(marker):
    """Processes of the machine that carry the marker in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if marker.encode() in path.read_bytes() else []
        except OSError:
            continue
    return found


def wait_until(condition, seconds=SLACK):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def run(code, stdin="", *, timeout_s=10.0, **limits):
    """Run a program and check that it ended in time."""
    start = time.monotonic()
    done = run_python(textwrap.dedent(code), stdin, timeout_s=timeout_s, **limits)
    assert time.monotonic() - start < timeout_s + SLACK
    assert done.status in confine.STATUSES
    return done


@pytest.fixture
def mode(monkeypatch, tmp_path):
    """Programs are confined; afterwards nothing is left of them and the next one is fine."""
    found = confine.protections()
    if found.mode == "none":
        pytest.skip(found.reason)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before, others = open_descriptors(), children()
    yield found
    assert run("print(6 * 7)").stdout == "42\n"
    assert open_descriptors() == before
    assert children() == others
    assert list(folder.iterdir()) == []


@pytest.fixture
def marker():
    return f"marker-{uuid.uuid4().hex}"


# A process that outlives its parent, out of its session, and ignores every signal it can.
DAEMON = """
    import os, signal, subprocess, sys, time
    if os.fork() == 0:
        os.setsid()
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(null, descriptor)
            os.execv(sys.executable, [sys.executable, "-S", "-c", "while True: pass", MARKER])
        os._exit(0)
    os.wait()
    time.sleep(0.3)
"""


class TestPrograms:
    def test_a_program_reads_and_writes(self, mode):
        done = run("import sys; print(input()[::-1]); print('é', file=sys.stderr)", "abc\n")
        assert (done.status, done.stdout, done.stderr) == ("ok", "cba\n", "é\n")
        assert 0 < done.seconds < SLACK

    @pytest.mark.parametrize(
        ("code", "status", "stderr"),
        [
            ("raise SystemExit(0)", "ok", ""),
            ("exit(3)", "error", ""),
            ("exit(137)", "error", ""),
            ("1 / 0", "error", "ZeroDivisionError: division by zero"),
            ("print('", "error", "SyntaxError"),
            ("x = 1\0", "error", "null bytes"),
            ("x = '\ud800'", "error", "SyntaxError"),
            ("import os; os.kill(os.getpid(), 9)", "killed", ""),
            ("import os; os.abort()", "killed", ""),
            ("import ctypes; ctypes.string_at(0)", "killed", ""),
            ("x = bytearray(10 << 30)", "memory", "MemoryError"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "timeout", ""),
        ],
    )
    def test_status(self, mode, code, status, stderr):
        done = run(code)
        assert done.status == status
        assert stderr in done.stderr

    def test_a_deep_recursion_ends(self, mode):
        code = """
            import sys
            sys.setrecursionlimit(10**9)
            f = lambda n: sorted([n], key=f)
            f(0)
        """
        assert run(code).status in {"killed", "error", "memory"}

    def test_output_and_input_that_are_not_unicode(self, mode):
        assert run("import os; os.write(1, b'a\\xffb')").stdout == "a\N{REPLACEMENT CHARACTER}b"
        assert run("print(input())", "a\ud800b").stdout == "a?b\n"

    def test_input_is_its_own_and_cannot_be_changed(self, mode):
        code = """
            import os
            try:
                os.write(0, b"x")
            except OSError as error:
                print(len(os.read(0, 10**7)))
        """
        assert run(code, "y" * 3_000_000).stdout == "3000000\n"

    def test_the_environment_and_the_folder_are_empty(self, mode, monkeypatch):
        monkeypatch.setenv("SECRET_TOKEN", "planted")
        code = """
            import os
            print(sorted(os.environ), os.listdir(), os.listdir("/tmp"), os.path.exists("/proc/1"))
            print(os.getcwd() == os.environ["HOME"], os.getuid() != 0, os.getgroups() == [0])
        """
        names = ["HOME", "LC_CTYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED"]
        names += ["PYTHONUTF8", "TMPDIR"]
        # Python itself may lie in /tmp, and then the way to it is there.
        python = {Path(p) for p in (sys.prefix, sys.base_prefix)}
        ways = {p.parts[2] for p in python if p.is_relative_to("/tmp")}
        assert run(code).stdout == f"{names} [] {sorted(ways)} False\nTrue True False\n"

    def test_programs_are_repeatable_and_use_processes_and_packages(self, mode):
        assert run("print(hash('a'))").stdout == run("print(hash('a'))").stdout
        code = """
            import multiprocessing, tempfile, unittest
            if __name__ == "__main__":
                with multiprocessing.get_context("fork").Pool(2) as pool:
                    print(pool.map(abs, [-1, -2]))
                tempfile.TemporaryFile().write(b"x")
        """
        assert run(code).stdout == "[1, 2]\n"

    def test_threads_run_programs_at_once(self, mode):
        with ThreadPoolExecutor(4) as executor:
            done = list(executor.map(lambda i: run(f"print({i})"), range(16)))
        assert [part.stdout for part in done] == [f"{i}\n" for i in range(16)]


class TestLimits:
    @pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(999)"])
    def test_time(self, mode, code):
        done = run(code, timeout_s=1.0)
        assert done.status == "timeout"
        assert 1.0 <= done.seconds < SLACK

    def test_a_program_that_ignores_every_signal(self, mode):
        code = """
            import signal
            for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN)
            while True:
                pass
        """
        assert run(code, timeout_s=1.0).status == "timeout"

    def test_memory_of_several_processes(self, mode):
        code = """
            import os, time
            for _ in range(5):
                if os.fork() == 0:
                    x = bytearray(60 << 20)
                    time.sleep(99)
            time.sleep(99)
        """
        assert run(code, memory_mb=200).status == "memory"
        assert run(code, memory_mb=1000, timeout_s=1.0).status == "timeout"

    def test_memory_that_no_process_maps(self, mode):
        if confine.FILTER in mode.missing:
            pytest.skip("no filter of system calls here")
        code = """
            import ctypes, os
            try:
                os.memfd_create("x")
            except PermissionError:
                print(ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600))
        """
        assert run(code).stdout == "-1\n"

    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_output(self, mode, stream):
        done = run(f"import sys\nwhile True: sys.{stream}.write('x' * 999)", output_bytes=100_000)
        assert (done.status, len(done.stdout) + len(done.stderr)) == ("output", 100_000)

    def test_output_up_to_the_limit_is_fine(self, mode):
        assert run("print('x' * 4999)", output_bytes=5000).status == "ok"
        assert run("print('x' * 5000)", output_bytes=5000).status == "output"

    def test_fork_bomb(self, mode):
        code = """
            import os
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
        """
        assert run(code, timeout_s=2.0).status in {"timeout", "killed", "memory"}

    def test_number_of_processes(self, mode):
        code = """
            import os, time
            for count in range(1, 99):
                try:
                    if os.fork() == 0:
                        time.sleep(99)
                except BlockingIOError:
                    break
            time.sleep(0.3)
            print(count)
        """
        assert run(code, processes=4).stdout in {"3\n", "4\n"}

    def test_huge_and_many_files(self, mode):
        code = """
            import os
            with open("x", "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(1 << 20))
                except OSError:
                    print(os.path.getsize("x") >> 20)
            os.remove("x")
            for i in range(20_000):
                try:
                    open(str(i), "x").close()
                except OSError:
                    break
            print(i)
            print(len(os.sched_getaffinity(0)) > 0)
        """
        size, count, _ = run(code, timeout_s=20).stdout.splitlines()
        assert 32 <= int(size) <= confine.FILES_MB
        assert int(count) < 5000


class TestHostilePrograms:
    def test_other_files_are_out_of_reach(self, mode, tmp_path, monkeypatch):
        home = tmp_path / "home"
        home.mkdir()
        secret = home / "secret.txt"
        secret.write_text("planted")
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.chdir(home)
        code = f"""
            import json, os, shutil, sys
            for start in ("", "/proc/1/root", "../../../..", "/.host", "/proc/self/cwd"):
                for path in ({str(secret)!r}, "secret.txt", {str(ROOT / "pyproject.toml")!r}):
                    try:
                        print(open(start + path).read())
                    except OSError:
                        pass
            shutil.rmtree({str(home)!r}, ignore_errors=True)
            for path in ("/usr/bin", sys.prefix + "/bin", os.path.dirname(json.__file__)):
                shutil.rmtree(path, ignore_errors=True)
            print(os.listdir("/usr/bin") != [])
        """
        assert run(code).stdout == "True\n"
        assert secret.read_text() == "planted"
        assert os.path.exists(sys.executable)

    def test_a_folder_inside_a_visible_one_is_hidden(self, mode, monkeypatch):
        try:
            folder = tempfile.TemporaryDirectory(dir=sys.prefix)
        except OSError:
            pytest.skip(f"{sys.prefix} cannot be written")
        with folder as path:
            os.chmod(path, 0o755)
            Path(path, "secret.txt").write_text("planted")
            code = f"import os; print(os.access({path!r}, os.R_OK), open({path!r} + '/secret.txt'))"
            assert "secret.txt" in run(code).stdout  # the test can fail
            monkeypatch.setenv("INTUITOR_RUNS", path)
            done = run(code)
            assert (done.status, done.stdout) == ("error", "")

    def test_nothing_but_its_folder_can_be_written(self, mode):
        code = """
            import os, sys
            for path in [*sys.path, sys.prefix, "/", "/dev", "/usr", "/tmp/..", "/etc"]:
                for name in (path + "/planted.py", path + "/os.py", path + "/bin/python"):
                    try:
                        open(name, "a").close()
                        print(name)
                    except OSError:
                        pass
            for name in ("/program.py", sys.executable, os.__file__):
                try:
                    os.chmod(name, 0o777)
                    print(name)
                except OSError:
                    pass
        """
        assert run(code).stdout == ""

    def test_the_evaluator_cannot_be_seen(self, mode, monkeypatch):
        monkeypatch.setenv("SECRET_TOKEN", "planted-secret")
        code = f"""
            import glob, os, socket
            print(os.listdir("/proc") if os.path.exists("/proc") else "")
            for path in (*glob.glob("/proc/*/environ"), "/proc/{os.getpid()}/environ"):
                print(open(path).read()) if os.path.exists(path) else None
            print(socket.gethostname(), os.getppid())
        """
        assert run(code).stdout == "\nsandbox 1\n"

    def test_no_network(self, mode, tmp_path):
        path, abstract = str(tmp_path / "socket"), "\0" + uuid.uuid4().hex
        with (
            socket.create_server(("127.0.0.1", 0)) as internet,
            socket.socket(socket.AF_UNIX) as named,
            socket.socket(socket.AF_UNIX) as unnamed,
        ):
            named.bind(path)
            unnamed.bind(abstract)
            listeners = [(socket.AF_INET, internet.getsockname()), (1, path), (1, abstract)]
            for listener in (internet, named, unnamed):
                listener.listen()
                listener.setblocking(False)
            code = f"""
                import socket
                for family, address in {[(int(a), b) for a, b in listeners]}:
                    with socket.socket(family) as client:
                        client.settimeout(1)
                        print(client.connect_ex(address) == 0)
                for family in (socket.AF_VSOCK, socket.AF_NETLINK, socket.AF_PACKET):
                    try:
                        print(socket.socket(family))
                    except OSError:
                        print("refused")
            """
            lines = run(code).stdout.splitlines()
            assert lines[:3] == ["False"] * 3
            assert lines[3:] == ["refused"] * 3 or confine.FILTER in mode.missing
            for listener in (internet, named, unnamed):
                with pytest.raises(BlockingIOError):
                    listener.accept()

    def test_no_other_process_can_be_signalled(self, mode):
        victim = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(999)"])
        code = f"""
            import os, signal
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            for pid in ({victim.pid}, {os.getpid()}, os.getppid(), 1, 0, -1, -{victim.pid}):
                for number in (signal.SIGTERM, signal.SIGKILL):
                    if (pid, number) != (0, signal.SIGKILL):
                        try:
                            os.kill(pid, number)
                        except OSError:
                            pass
            print("alive")
        """
        try:
            assert run(code).stdout == "alive\n"
            assert victim.poll() is None
        finally:
            victim.kill()
            victim.wait()
        assert run("import os; os.kill(0, 9)").status == "killed"

    def test_a_daemon_ends_with_its_program(self, mode, marker):
        seen = []
        with ThreadPoolExecutor(1) as executor:
            code = textwrap.dedent(DAEMON).replace("MARKER", repr(marker)) + "time.sleep(1)"
            done = executor.submit(run, code)
            assert wait_until(lambda: seen.extend(marked(marker)) or seen or done.done())
        assert done.result().status == "ok"
        assert seen  # the test can fail: it was there
        assert marked(marker) == []

    def test_privileged_calls_are_refused(self, mode):
        code = """
            import ctypes, os
            libc = ctypes.CDLL(None)
            print(
                libc.unshare(0x10000000), libc.unshare(0x20000), libc.umount2(b"/usr", 2),
                libc.mount(b"none", b"/box", b"tmpfs", 0, None), libc.chroot(b"/box"),
                libc.mount(b"none", b"/usr", None, 0x1020, None),
                libc.ptrace(16, os.getppid(), 0, 0), libc.ptrace(16, 1, 0, 0),
                libc.syscall(56, 0x10000011, 0, 0, 0, 0), libc.sethostname(b"x", 1),
            )
            for function, argument in ((os.setuid, 0), (os.setgid, 0), (os.setgroups, [0])):
                try:
                    function(argument)
                    print(function)
                except OSError:
                    pass
        """
        done = run(code)
        assert done.stdout == " ".join(["-1"] * 10) + "\n", done.stderr

    def test_the_verdict_cannot_be_forged(self, mode):
        code = """
            import ctypes, os, resource, sys
            libc = ctypes.CDLL(None)
            junk = b"ok\\nexit 0\\nstart \\n"
            for descriptor in [*range(3, 256), *range(3, 256)]:
                try:
                    os.write(descriptor, junk)
                    print(descriptor)
                except OSError:
                    pass
                try:
                    os.dup2(1, descriptor)
                    os.close(descriptor)
                except OSError:
                    pass
            for pid in (1, os.getppid()):
                space = ctypes.create_string_buffer(8)
                vector = (ctypes.c_uint64 * 2)(ctypes.addressof(space), 8)
                print(libc.process_vm_readv(pid, vector, 1, vector, 1, 0))
                handle = libc.syscall(434, pid, 0)
                print(max(libc.syscall(438, handle, number, 0) for number in range(99)))
                try:
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))
                except OSError:
                    pass
            sys.stdout.flush()
            for descriptor in range(256):
                try:
                    os.close(descriptor)
                except OSError:
                    pass
            os._exit(7)
        """
        done = run(code)
        assert (done.status, done.stdout) == ("error", "-1\n" * 4)

    def test_a_killed_supervisor_takes_the_program_along(self, mode, marker):
        code = textwrap.dedent(DAEMON).replace("MARKER", repr(marker)) + "time.sleep(99)"
        with ThreadPoolExecutor(1) as executor:
            done = executor.submit(run_python, code, timeout_s=60)
            assert wait_until(lambda: marked(marker))
            for pid in children():
                os.kill(int(pid), signal.SIGKILL)
            with pytest.raises(SandboxError, match="without a report"):
                done.result()
        assert wait_until(lambda: not marked(marker))

    def test_a_killed_evaluator_takes_the_program_along(self, mode, marker):
        code = textwrap.dedent(DAEMON).replace("MARKER", repr(marker)) + "time.sleep(99)"
        script = f"""
            from intuitor_lib.grading.sandbox import confine
            confine.run_python({code!r}, timeout_s=60)
        """
        evaluator = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT)
        try:
            assert wait_until(lambda: marked(f"while True: pass\0{marker}"), 60)
        finally:
            evaluator.kill()
            evaluator.wait()
        assert wait_until(lambda: not marked(marker))


class TestProtections:
    @pytest.fixture
    def nothing_works(self, monkeypatch):
        def refuse():
            raise SandboxError("namespaces: not today")

        anew = functools.cache(confine._found.__wrapped__)
        monkeypatch.setattr(confine, "_found", anew)
        monkeypatch.setattr(confine, "_probe", refuse)
        monkeypatch.delenv(confine.UNPROTECTED, raising=False)

    def test_they_are_found_once_and_told(self, monkeypatch):
        calls = []
        found = Protections("namespaces", confine.PROTECTIONS[2:])
        anew = functools.cache(confine._found.__wrapped__)
        monkeypatch.setattr(confine, "_found", anew)
        monkeypatch.setattr(confine, "_probe", lambda: calls.append(1) or found)
        assert [confine.protections(), confine.protections()] == [found, found]
        assert calls == [1]
        line = "programs run with namespaces: own files, no network; not on: own processes, "
        assert str(found).startswith(line)

    def test_programs_are_refused_where_nothing_works(self, nothing_works):
        with pytest.raises(SandboxError, match=r"not today.*Enable user namespaces") as refused:
            run_python("print(1)")
        assert confine.UNPROTECTED in str(refused.value)
        assert "WITHOUT" in str(confine.protections())

    def test_programs_may_run_unprotected(self, nothing_works, monkeypatch, tmp_path, marker):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setenv("SECRET_TOKEN", "planted")
        monkeypatch.setenv(confine.UNPROTECTED, "1")
        before, others = open_descriptors(), children()
        code = "import os; print(input(), os.listdir(), 'SECRET_TOKEN' in os.environ)"
        assert run(code, "a").stdout == "a [] False\n"
        code = DAEMON.replace("MARKER", repr(marker))
        assert run(code).status == "ok"
        assert marked(marker) == []
        assert run("while True: pass", timeout_s=1).status == "timeout"
        assert run("x = bytearray(10 << 30)").status == "memory"
        assert list(tmp_path.iterdir()) == []
        assert open_descriptors() == before
        assert children() == others

    def test_an_unprotected_program_ends_with_the_evaluator(self, marker, tmp_path):
        code = DAEMON.replace("MARKER", repr(marker)) + "    time.sleep(99)"
        script = f"""
            import textwrap
            from intuitor_lib.grading.sandbox import confine
            confine.protections = lambda: confine.Protections("none", ())
            confine.run_python(textwrap.dedent({code!r}), timeout_s=60)
        """
        evaluator = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=ROOT,
            # Its folder stays when it is killed.
            env={**os.environ, "TMPDIR": str(tmp_path), confine.UNPROTECTED: "1"},
        )
        try:
            assert wait_until(lambda: marked(f"while True: pass\0{marker}"), 60)
        finally:
            evaluator.kill()
            evaluator.wait()
        assert wait_until(lambda: not marked(marker))

    def test_a_broken_interpreter(self, nothing_works, monkeypatch):
        monkeypatch.setenv(confine.UNPROTECTED, "1")
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        with pytest.raises(SandboxError, match="/nonexistent/python"):
            run_python("print(1)")

    @pytest.mark.parametrize("name", ["timeout_s", "memory_mb", "output_bytes", "processes"])
    @pytest.mark.parametrize("value", [0, -1, float("nan")])
    def test_limits_are_positive(self, name, value):
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            run_python("print(1)", **{name: value})

    def test_a_program_is_text(self):
        with pytest.raises(ValueError, match="code is bytes"):
            run_python(b"print(1)")
