"""Run Python that a model wrote, isolated from the rest of the machine.

Each program gets a process with an empty environment and an empty folder, without network, other
processes or files beyond Python itself, and with limits on time, memory, output, processes and
files. On Linux this is done with namespaces, made by `jail`. Nothing of a program survives its run.
The kernel stays exposed: a fault there, or in Python's own launcher, could let a program out, so
programs meant to attack belong in a virtual machine.
"""

import contextlib
import functools
import marshal
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from .layout import layout

STATUSES = ("ok", "error", "timeout", "memory", "output", "killed")
UNPROTECTED = "INTUITOR_UNPROTECTED_CODE"
FILES_MB = 64  # limit of a program's folder, apart from its memory
START_SECONDS = 60.0  # more than the supervisor itself allows for the start
END_SECONDS = 30.0  # to end every process on a busy machine

KEPT_APART = ("own files", "no network", "own processes", "no privileges")
FILE_COUNT = "a limit on the number of files"
FILTER = "a filter of system calls"
PROTECTIONS = (
    *KEPT_APART,
    *("no environment", "a limit on time", "a limit on output"),
    *("a limit on memory in all", "a limit on processes", FILE_COUNT, FILTER),
)


class SandboxError(RuntimeError):
    """Programs cannot be run here. The message has the reason and the remedy."""


@dataclass(frozen=True)
class Completed:
    """How a program ended (one of STATUSES), its output and its wall time in seconds."""

    status: str
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True)
class Protections:
    """The mode ("namespaces" or "none") and which of PROTECTIONS are missing."""

    mode: str
    missing: tuple[str, ...]
    reason: str = ""  # why namespaces cannot be used here

    def __str__(self) -> str:
        """One line for the user."""
        on = ", ".join(name for name in PROTECTIONS if name not in self.missing)
        means = "WITHOUT protection" if self.mode == "none" else f"with {self.mode}"
        absent = f"; not on: {', '.join(self.missing)}" if self.missing else ""
        return f"programs run {means}: {on}{absent}"


def run_python(
    code: str,
    stdin: str = "",
    *,
    timeout_s: float = 10.0,
    memory_mb: int = 1024,
    output_bytes: int = 1 << 20,
    processes: int = 8,
) -> Completed:
    """Run `code` as a program and return how it ended; may be called from several threads.

    Status "ok" is exit code 0 and "error" any other, also after an uncaught exception; "timeout" is
    over `timeout_s` wall or CPU seconds; "memory" an uncaught MemoryError, or all its processes
    together over `memory_mb` MiB; "output" over `output_bytes` bytes of stdout and stderr together,
    of which as many are returned, stdout first; "killed" any other signal, or more processes and
    threads than `processes`. Output is decoded as UTF-8, with replacement of invalid bytes.

    Raises:
        SandboxError: namespaces do not work and the environment variable
            INTUITOR_UNPROTECTED_CODE=1 does not allow to run without them, or Python cannot be
            started.
        ValueError: a limit that is not positive, or `code` or `stdin` that is no text.
    """
    limits: dict[str, Any] = {"timeout_s": timeout_s, "memory_mb": memory_mb}
    limits |= {"output_bytes": output_bytes, "processes": processes}
    for name, value in limits.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value!r}; pass a number above 0")
    if not isinstance(code, str) or not isinstance(stdin, str):
        raise ValueError(
            f"code is {type(code).__name__} and stdin {type(stdin).__name__}; pass both as str"
        )
    found = protections()
    if found.mode == "none" and os.environ.get(UNPROTECTED) != "1":
        raise SandboxError(
            "programs that a model wrote cannot be kept apart from this machine: "
            f"{found.reason}. Enable user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0), "
            f"run on Linux, or set {UNPROTECTED}=1 inside a container that may be thrown away"
        )
    if "\0" in code:  # Python before 3.11.4 runs what stands before it
        code = 'raise SyntaxError("source code cannot contain null bytes")'
    program = code.encode(errors="surrogatepass")  # Python refuses such a program
    completed, _ = _run(found.mode, program, stdin.encode(errors="replace"), limits)
    return completed


# --- Protections of this machine --------------------------------------------------------------


_PROBING = threading.Lock()


def protections() -> Protections:
    """The protections of this machine, found once per process by running a trial program."""
    with _PROBING:
        return _found()


@functools.cache
def _found() -> Protections:
    try:
        return _probe()
    except SandboxError as error:
        return Protections("none", (*KEPT_APART, FILE_COUNT, FILTER), str(error))


def _probe() -> Protections:
    """The protections by namespaces. Raises SandboxError if they do not work here."""
    if not sys.platform.startswith("linux"):
        raise SandboxError(f"namespaces: only on Linux, and this is {sys.platform}")
    limits = {"timeout_s": 20.0, "memory_mb": 1024, "output_bytes": 4096, "processes": 2}
    # Starting is not enough: if the machine's own files are visible, nothing is isolated.
    code = b"import os; print(os.path.exists('/proc/self') or os.listdir('.') or 'apart')"
    completed, missing = _run("namespaces", code, b"", limits)
    if (completed.status, completed.stdout) != ("ok", "apart\n"):
        reason = (completed.stderr or completed.stdout).strip() or completed.status
        raise SandboxError(f"namespaces: a trial program ended wrongly: {reason[-500:]}")
    missing += [f"hiding {path}" for path in layout()["visible"]]
    return Protections("namespaces", tuple(missing))


# --- One run ----------------------------------------------------------------------------------


def _request(mode: str, folder: str, limits: dict[str, Any]) -> dict[str, Any]:
    home, program = f"{folder}/box", f"{folder}/program.py"
    environment = {"HOME": home, "TMPDIR": home, "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return {
        **limits,
        **(layout() if mode != "none" else {}),
        "mode": mode,
        "parent": os.getpid(),
        "own_id": 0,
        "files_mb": FILES_MB,
        "executable": os.path.realpath(sys.executable),
        # With -I Python would ignore PYTHONHASHSEED, and sets would differ from run to run.
        "argv": [sys.executable, "-s", "-P", "-B", program],
        "environment": environment,
    }


def _run(
    mode: str, code: bytes, stdin: bytes, limits: dict[str, Any]
) -> tuple[Completed, list[str]]:
    """How a program ended in a mode, and which protections were missing."""
    with contextlib.ExitStack() as stack:
        try:
            folder = ""
            if mode == "none":
                scratch = tempfile.TemporaryDirectory(prefix="program-", ignore_cleanup_errors=True)
                folder = stack.enter_context(scratch)
            request, out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            marshal.dump((_request(mode, folder, limits), code), request)
            request.seek(0)
            given = stack.enter_context(tempfile.NamedTemporaryFile(buffering=0))
            given.write(stdin)
            unchangeable = stack.enter_context(open(given.name, "rb"))
            report, their_report, their_lease, lease = *os.pipe(), *os.pipe()
            for descriptor in (report, their_report, their_lease, lease):
                stack.callback(os.close, descriptor)
            theirs = (request.fileno(), their_report, their_lease)
            launcher = str(Path(__file__).with_name("jail.py"))
            supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", launcher, *map(str, theirs)],
                stdin=unchangeable,
                stdout=out,
                stderr=err,
                pass_fds=theirs,
                env={},
                cwd="/",
                start_new_session=True,  # out of reach of the Ctrl-C meant for a notebook
            )
        except OSError as error:
            raise SandboxError(
                f"no process for a program could be started with {sys.executable!r}: {error}"
            ) from error
        _wait(supervisor, report, lease, limits["timeout_s"] + START_SECONDS)
        room = limits["output_bytes"]
        full = sum(os.fstat(file.fileno()).st_size for file in (out, err)) > room
        out.seek(0)
        err.seek(0)
        written = out.read(room)
        complained = err.read(room - len(written))
        stdout, stderr = (part.decode(errors="replace") for part in (written, complained))
        if not connection.wait([report], 0):
            reason = stderr.strip()[-500:] or "no reason"
            raise SandboxError(f"{mode}: the supervisor ended without a report: {reason}")
        ending = marshal.loads(os.read(report, 65536))
    if "failed" in ending:
        raise SandboxError(f"{mode}: {ending['failed']}")
    status, last_line = ending["status"], stderr.rstrip().rpartition("\n")[2]
    if full:
        status = "output"
    elif status == "error" and last_line.partition(":")[0].endswith("MemoryError"):
        status = "memory"
    return Completed(status, stdout, stderr, ending["seconds"]), ending["missing"]


def _wait(supervisor: subprocess.Popen[bytes], report: int, lease: int, seconds: float) -> None:
    """Wait for the supervisor's report, which comes once all processes have ended.

    Where it comes too late or this process is interrupted, end the program and the supervisor.
    """
    deadline = time.monotonic() + seconds
    try:
        # An end of file may never come: a fork of this process may hold the pipe's other end.
        while supervisor.poll() is None and time.monotonic() < deadline:
            if connection.wait([report], 0.5):
                break
    finally:
        try:
            if supervisor.poll() is None:
                with contextlib.suppress(BrokenPipeError):
                    os.write(lease, b"stop")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    supervisor.wait(END_SECONDS)
        finally:
            supervisor.kill()  # in a namespace, the program ends with it
            supervisor.wait()
