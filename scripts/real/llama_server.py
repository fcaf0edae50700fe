#!/usr/bin/env python3
"""llama_server.py MODEL PORT [SLOTS]: a real llama-server on 127.0.0.1:PORT, for as long as somebody wants it.

Prints its address on standard output once the model is loaded and requests are answered; PORT 0 is any free one. It
ends at once, whatever it is working on, when

- standard input is a pipe or a socket and the other end closes it (a test that panics leaves nothing behind), or
- the process that started it is gone, or
- it gets SIGTERM, SIGINT or SIGKILL.

With LLAMA_API_KEY in its environment it asks for that key. LLAMA_BATCH is how many tokens of prompts it reads at once (2048):
between two batches it answers /slots.

Each of SLOTS (default 4) has a context of 8,192 tokens. One thread computes, so two servers fit on two cores.
Needs: xllamacpp.
"""

import os
import signal
import stat
import sys
import threading
import time

# As soon as there is a parent to remember: importing the library takes a moment in which it may die.
PARENT = os.getppid()

import xllamacpp

CONTEXT_PER_SLOT = 8192
PARENT_INTERVAL = 0.25  # seconds


def end_with_stdin():
    """Blocks until standard input is closed. Not by sys.exit: C++ threads would go on."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def end_with_parent():
    """Polled: a death signal would fire when the starting *thread* ends, and tests start servers in threads."""
    while os.getppid() == PARENT:
        time.sleep(PARENT_INTERVAL)
    os._exit(0)


def stdin_is_a_lifeline():
    """A terminal or /dev/null (what a shell gives to background jobs) says nothing about who wants the server."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def parameters(model, port, slots):
    """One server for tests: everything that can be looked at is on, and nothing is written anywhere."""
    p = xllamacpp.CommonParams()
    p.model.path = model
    p.hostnames = ["127.0.0.1"]
    p.port = port
    p.n_parallel = slots
    p.n_ctx = slots * CONTEXT_PER_SLOT
    p.n_gpu_layers = 0
    p.cpuparams.n_threads = 1
    p.cpuparams_batch.n_threads = 1
    p.endpoint_metrics = True
    p.endpoint_slots = True
    if "LLAMA_BATCH" in os.environ:
        p.n_batch = int(os.environ["LLAMA_BATCH"])
    if "LLAMA_API_KEY" in os.environ:  # what llama-server itself calls it
        p.api_keys = [os.environ["LLAMA_API_KEY"]]
    return p


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    slots = int(sys.argv[3]) if len(sys.argv) == 4 else 4
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()
    if stdin_is_a_lifeline():
        threading.Thread(target=end_with_stdin, daemon=True).start()
    server = xllamacpp.Server(parameters(sys.argv[1], int(sys.argv[2]), slots))
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
