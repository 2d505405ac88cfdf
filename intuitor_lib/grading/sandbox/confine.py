"""Run Python that a model wrote, isolated from the rest of the machine.

Each program gets a process with an empty environment and an empty folder, without network, other
processes or files beyond Python itself, and with limits on time, memory, output, processes and
files. On Linux this is done with namespaces, made by bubblewrap or by `jail`, whichever works.
Nothing of a program survives its run. The kernel stays exposed: a fault there, or in Python's own
launcher, could let a program out, so programs meant to attack belong in a virtual machine.
"""

import contextlib
import marshal
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .layout import layout

STATUSES = ("ok", "error", "timeout", "memory", "output", "killed")
UNPROTECTED = "INTUITOR_UNPROTECTED_CODE"
MODES = ("bubblewrap", "namespaces")
FILES_MB = 64  # limit of a program's folder, apart from its memory
START_SECONDS = 60.0  # more than the supervisor itself allows for the start
END_SECONDS = 30.0  # to end every process on a busy machine

KEPT_APART = ("own files", "no network", "own processes", "no privileges")
WATCHED = (
    *("no environment", "a limit on time", "a limit on output"),
    *("a limit on memory in all", "a limit on processes"),
)
FILE_COUNT = "a limit on the number of files"
FILTER = "a filter of system calls"


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
    """The mode ("bubblewrap", "namespaces" or "none") and which protections are on or missing."""

    mode: str
    on: tuple[str, ...]
    missing: tuple[str, ...]
    reasons: tuple[str, ...] = ()  # why a mode cannot be used here

    def describe(self) -> str:
        """One line for the user."""
        means = "WITHOUT protection" if self.mode == "none" else f"with {self.mode}"
        absent = f"; not on: {', '.join(self.missing)}" if self.missing else ""
        return f"programs run {means}: {', '.join(self.on)}{absent}"

    __str__ = describe


def run_python(
    code: str,
    stdin: str = "",
    *,
    timeout_s: float = 10.0,
    memory_mb: int = 1024,
    output_bytes: int = 1 << 20,
    processes: int = 8,
    unprotected: bool | None = None,
) -> Completed:
    """Run `code` as a program and return how it ended; may be called from several threads.

    Status "ok" is exit code 0 and "error" any other, also after an uncaught exception; "timeout" is
    over `timeout_s` wall or CPU seconds; "memory" an uncaught MemoryError, or all its processes
    together over `memory_mb` MiB; "output" over `output_bytes` bytes of stdout and stderr
    together, of which the first are returned; "killed" any other signal, or more processes and
    threads than `processes`. Output is decoded as UTF-8, with replacement of invalid bytes.

    Raises:
        SandboxError: neither bubblewrap nor namespaces work and `unprotected` (by default the
            environment variable INTUITOR_UNPROTECTED_CODE=1) does not allow to run without them,
            or Python cannot be started.
        ValueError: a limit that is not positive, or `code` or `stdin` that is no text.
    """
    limits: dict[str, Any] = {
        "timeout_s": timeout_s,
        "memory_mb": memory_mb,
        "output_bytes": output_bytes,
        "processes": processes,
    }
    for name, value in limits.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value!r}; pass a number above 0")
    if not isinstance(code, str) or not isinstance(stdin, str):
        raise ValueError(
            f"code is {type(code).__name__} and stdin {type(stdin).__name__}; pass both as str"
        )
    try:
        program = code.encode()
    except UnicodeEncodeError as error:
        return _unreadable(f"source code cannot contain a surrogate ({error.reason})")
    if b"\0" in program:
        return _unreadable("source code cannot contain null bytes")

    found = protections()
    allowed = os.environ.get(UNPROTECTED) == "1" if unprotected is None else unprotected
    if found.mode == "none" and not allowed:
        raise SandboxError(_refusal(found))
    completed, _ = _run(found.mode, program, stdin.encode(errors="replace"), limits)
    return completed


def _unreadable(reason: str) -> Completed:
    return Completed("error", "", f"SyntaxError: {reason}\n", 0.0)


def _refusal(found: Protections) -> str:
    reasons = "; ".join(found.reasons) or "no protection was found"
    return (
        f"programs that a model wrote cannot be kept apart from this machine: {reasons}. Install "
        "bubblewrap (apt-get install bubblewrap), enable user namespaces (sysctl "
        "kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0), run on Linux, or "
        f"set {UNPROTECTED}=1 inside a container that may be thrown away"
    )


# --- Protections of this machine --------------------------------------------------------------

_LOCK = threading.Lock()
_FOUND: list[Protections] = []


def protections() -> Protections:
    """The protections of this machine, found once per process by running a trial program."""
    with _LOCK:
        if not _FOUND:
            _FOUND.append(_probe())
        return _FOUND[0]


def _probe() -> Protections:
    reasons: list[str] = []
    # Only namespaces made by root can give each program its own user.
    for mode in MODES[::-1] if os.geteuid() == 0 else MODES:
        try:
            return _probe_mode(mode)
        except SandboxError as error:
            reasons.append(str(error))
    return Protections("none", WATCHED, (*KEPT_APART, FILE_COUNT), tuple(reasons))


def _probe_mode(mode: str) -> Protections:
    """The protections of a mode. Raises SandboxError if it does not work here."""
    if not sys.platform.startswith("linux"):
        raise SandboxError(f"{mode}: only on Linux, and this is {sys.platform}")
    if mode == "bubblewrap" and shutil.which("bwrap") is None:
        raise SandboxError("bubblewrap: no bwrap is installed")
    limits = {"timeout_s": 20.0, "memory_mb": 1024, "output_bytes": 4096, "processes": 2}
    # Starting is not enough: if the machine's own files are visible, nothing is isolated.
    code = b"import os; print(os.path.exists('/proc/self') or os.listdir('.') or 'apart')"
    completed, missing = _run(mode, code, b"", limits)
    if (completed.status, completed.stdout) != ("ok", "apart\n"):
        reason = (completed.stderr or completed.stdout).strip() or completed.status
        raise SandboxError(f"{mode}: a trial program ended wrongly: {reason[-500:]}")
    if mode == "bubblewrap":
        missing += [FILE_COUNT]
    missing += [f"hiding {path}" for path in layout()["visible"]]
    on = [name for name in (*KEPT_APART, *WATCHED, FILE_COUNT, FILTER) if name not in missing]
    return Protections(mode, tuple(on), tuple(missing))


# --- One run ----------------------------------------------------------------------------------


def _request(mode: str, folder: str, limits: dict[str, Any]) -> dict[str, Any]:
    home, program = f"{folder}/box", f"{folder}/program.py"
    environment = {
        "HOME": home,
        "TMPDIR": home,
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    return {
        **limits,
        **(layout() if mode != "none" else {}),
        "mode": mode,
        "parent": os.getpid(),
        "own_id": 0,
        "files_mb": FILES_MB,
        "bubblewrap": shutil.which("bwrap"),
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
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="program-", ignore_cleanup_errors=True)
                )
            request = stack.enter_context(tempfile.TemporaryFile())
            marshal.dump((_request(mode, folder, limits), code, stdin), request)
            request.seek(0)
            run = stack.enter_context(
                contextlib.closing(_Run(request.fileno(), limits["output_bytes"]))
            )
        except OSError as error:
            raise SandboxError(
                f"no process for a program could be started with {sys.executable!r}: {error}"
            ) from error
        report = run.read(limits["timeout_s"])
        stdout, stderr = (part.decode(errors="replace") for part in run.output())
    if "failed" in report:
        raise SandboxError(f"{mode}: {report['failed']}")
    status = report["status"]
    if run.full:
        status = "output"
    elif status == "error" and _ends_in_memory_error(stderr):
        status = "memory"
    return Completed(status, stdout, stderr, report["seconds"]), report["missing"]


def _ends_in_memory_error(stderr: str) -> bool:
    last = stderr.rstrip().rpartition("\n")[2]
    return last.partition(":")[0].endswith("MemoryError")


class _Run:
    """A supervisor (`jail`) and this process's ends of its pipes."""

    def __init__(self, request: int, output_bytes: int) -> None:
        self.room = output_bytes
        self.full = False  # the program wrote more than that
        self.report, report = os.pipe()
        lease, self.lease = os.pipe()
        try:
            launcher = Path(__file__).with_name("jail.py")
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", str(launcher), "run", str(report), str(lease)],
                stdin=request,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(report, lease),
                env={},
                cwd="/",
                start_new_session=True,  # out of reach of the Ctrl-C meant for a notebook
                bufsize=0,
            )
        except BaseException:
            self._close_pipes()
            raise
        finally:
            os.close(report)
            os.close(lease)
        out, err = self.process.stdout, self.process.stderr
        self.streams = [stream.fileno() for stream in (out, err) if stream is not None]
        self.parts = {descriptor: bytearray() for descriptor in (*self.streams, self.report)}

    def read(self, timeout_s: float) -> dict[str, Any]:
        """Read the program's output until the supervisor's report comes; return the report."""
        deadline = time.monotonic() + timeout_s + START_SECONDS
        stopped = False
        # The report comes once all processes have ended. An end of file may never come, because a
        # fork of this process may hold a copy of the pipe's other end.
        with selectors.DefaultSelector() as selector:
            for descriptor in self.parts:
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            while not self.parts[self.report]:
                for key, _ in selector.select(0.5):
                    if not self._take(key.fd):
                        selector.unregister(key.fd)
                late = time.monotonic() > deadline
                if (late or self.full) and not stopped:
                    self._stop()
                    stopped, deadline = True, time.monotonic() + END_SECONDS
                elif late or (self.process.poll() is not None and not self._take(self.report)):
                    break
            for descriptor in self.streams:
                while self._take(descriptor):
                    pass
        if self.parts[self.report]:
            return marshal.loads(bytes(self.parts[self.report]))
        errors = bytes(self.parts[self.streams[1]]).decode(errors="replace").strip()[-500:]
        return {"failed": f"the supervisor ended without a report: {errors or 'no reason'}"}

    def output(self) -> list[bytes]:
        return [bytes(self.parts[descriptor]) for descriptor in self.streams]

    def _take(self, descriptor: int) -> bool:
        """Keep the content of a pipe up to the limit; return whether there was any."""
        try:
            block = os.read(descriptor, 65536)
        except BlockingIOError:
            return False
        kept = block
        if descriptor in self.streams:
            kept = block[: self.room]
            self.full = self.full or len(block) > self.room
            self.room -= len(kept)
        self.parts[descriptor] += kept
        return bool(block)

    def _stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self.lease, b"stop")

    def close(self) -> None:
        """End the program and the supervisor if they still run, and wait for them."""
        try:
            if self.process.poll() is None:
                self._stop()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(END_SECONDS)
        finally:
            self.process.kill()  # in a namespace, the program ends with it
            self.process.wait()
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()
            self._close_pipes()

    def _close_pipes(self) -> None:
        os.close(self.report)
        os.close(self.lease)
