"""Serves one WSGI application on 127.0.0.1 until told to stop, or until the process that started it is gone.

    serve.py keystone|neutron PORT WORKERS THREADS

Configuration comes from the environment variables that the services read themselves.
"""
import ctypes
import importlib
import os
import signal
import socket
import sys

APPLICATIONS = {"keystone": "keystone.wsgi.api", "neutron": "neutron.wsgi.api"}
PR_SET_PDEATHSIG = 1


def die_with_parent():
    """A service must not outlive whoever started it, however that one ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def worker(service, listener, threads, ready):
    import waitress

    sys.argv = [service]
    application = importlib.import_module(APPLICATIONS[service]).application
    os.write(ready, b"1")
    os.close(ready)
    waitress.serve(application, sockets=[listener], threads=threads, backlog=512, channel_timeout=300)


def start_worker(service, listener, threads):
    """Forks a worker and waits until its application is loaded; gives its pid."""
    loaded, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(loaded)
        die_with_parent()
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        try:
            worker(service, listener, threads, ready)
        finally:
            os._exit(1)
    os.close(ready)
    # One after the other: the first one may write what all of them need to the database.
    if os.read(loaded, 1) != b"1":
        sys.exit(f"{service}: a worker did not start")
    os.close(loaded)
    return pid


def main():
    service, port, workers, threads = sys.argv[1], *map(int, sys.argv[2:5])
    die_with_parent()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pids = [start_worker(service, listener, threads) for _ in range(workers)]
    try:
        ended, status = os.wait()
        print(f"{service}: worker {ended} ended with {status}", flush=True)
        pids.remove(ended)
        sys.exit(1)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    main()
