"""A candidate of kazoo's Election, which writes the same history as the agent:
NAME SERVERS PATH TIMEOUT_SECONDS. It leads while the function given to run is
running and the client says that it is connected, which it asks every 3 ms. It
ends when its standard input does."""

import json
import os
import sys
import threading
import time

from kazoo.client import KazooClient
from kazoo.protocol.states import KazooState

name, servers, path, timeout = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
client = KazooClient(hosts=servers, timeout=timeout)
running = threading.Event()
lock = threading.Lock()


def write(kind, at=None, after=0):
    with lock:
        at = at or time.monotonic_ns()  # CLOCK_MONOTONIC
        print(json.dumps({"t": at, "a": after, "w": name, "k": kind, "n": 1}), flush=True)


def lead():
    running.set()
    while client.state != KazooState.LOST:
        time.sleep(0.003)
    running.clear()


def sample():
    led = False
    while True:
        before = time.monotonic_ns()
        leads = running.is_set() and client.state == KazooState.CONNECTED
        after = time.monotonic_ns()
        if leads:
            write("true", before, after)
        elif led:
            write("false", before, after)
        if leads and not led:
            write("acked")  # kazoo has no word of its own for it
        led = leads
        time.sleep(0.003)


def stand():
    client.start(timeout=30)
    election = client.Election(path, name)
    threading.Thread(target=tell, args=(client.Election(path, name),), daemon=True).start()
    while True:
        election.run(lead)


def tell(election):
    while name not in election.contenders():
        time.sleep(0.02)
    write("voted")


threading.Thread(target=sample, daemon=True).start()
threading.Thread(target=stand, daemon=True).start()
sys.stdin.read()
os._exit(0)
