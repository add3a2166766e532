"""The parent of a running VMM, a small process of its own that outlives every command.

It starts the programs of a Launch, notices the VMM's end however that comes, and clears away what
must not outlast it: the secrets first, then helper, sockets and process file. It is started as
`python -m mvm_guest.vm.supervisor DATA_DIR NAME LAUNCH`, the Launch as JSON, in the instance's
directory, and writes `{"error": null}`, or what went wrong, to standard output.
"""

import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from mvm_guest import process
from mvm_guest.errors import MvmError
from mvm_guest.vm import instance
from mvm_guest.vm.instance import Instance
from mvm_guest.vm.launch import Launch
from mvm_guest.vm.processes import process as process_of

_HELPER_SECONDS = 10.0


def main(arguments: list[str]) -> int:
    """Supervise one instance until its VMM has ended."""
    data_dir, name, launch = arguments
    os.umask(0o077)
    # A handler, not SIG_IGN: what is ignored stays so in the programs that are started.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    watched = Instance(Path(data_dir), name)
    try:
        vmm = _start(watched, Launch(**json.loads(launch)))
    except (MvmError, OSError) as error:
        watched.clear()
        _report(str(error))
        return 1
    _report(None)
    failure = _wait(vmm)
    _finish(watched, failure)
    return 0


def _start(watched: Instance, launch: Launch) -> int:
    """Start helper and VMM, note them in the record, and return the VMM's process number."""
    record = watched.record()
    if record is None:
        raise MvmError(f"{watched.directory} has no record")
    record = replace(record, supervisor=process_of(os.getpid()))
    with (watched / instance.LOG).open("ab") as log:
        if launch.helper and launch.helper_socket:
            helper = process.spawn(launch.helper, stdout=log, stderr=log)
            record = replace(record, helper=process_of(helper.pid))
            watched.write_record(record)
            deadline = time.monotonic() + _HELPER_SECONDS
            while not (watched / launch.helper_socket).exists():
                if helper.poll() is not None:
                    how = process.how_it_ended(helper.returncode)
                    raise MvmError(f"{launch.helper[0]} {how}")
                if time.monotonic() >= deadline:
                    raise MvmError(f"{launch.helper[0]} does not listen")
                time.sleep(0.01)
        vmm = process.spawn(launch.vmm, stdout=log, stderr=log)
    watched.write_record(replace(record, vmm=process_of(vmm.pid)))
    (watched / instance.PID).write_text(f"{vmm.pid}\n")
    return vmm.pid


def _wait(vmm: int) -> str | None:
    """Wait for the VMM's end, and say how it failed if it did."""
    while True:
        pid, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        if pid == vmm:
            return process.how_it_ended(code) if code else None
        print(f"the VMM's helper {process.how_it_ended(code)}", file=sys.stderr, flush=True)


def _finish(watched: Instance, failure: str | None) -> None:
    watched.clear()
    record = watched.record()
    if record is not None:
        watched.write_record(instance.ended(record, failure))


def _report(error: str | None) -> None:
    # Whoever asked may be gone; the instance runs, or not, all the same.
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps({"error": error}), flush=True)
    # The other end reads until this one is closed, which the programs have not inherited.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
