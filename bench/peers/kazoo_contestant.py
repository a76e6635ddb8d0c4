"""Candidates of kazoo's Election, each on a session of its own: SERVERS PATH
TIMEOUT_SECONDS N. ../contestant says what is asked and answered."""

import os
import sys
import threading
import time
import traceback

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.protocol.states import KazooState

servers, path, timeout, n = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
changed = threading.Condition()
leader, won = None, 0  # guarded by changed
output = threading.Lock()


def say(line):
    with output:
        print(line, flush=True)


class Candidate:
    def __init__(self, number):
        self.number = number
        self.client = KazooClient(hosts=servers, timeout=timeout)
        self.client.add_listener(self.listen)
        self.connected = self.client.start_async()
        self.wanted = self.ended = False
        self.began = 0  # when its leadership was given up
        self.join_now = threading.Semaphore(0)
        self.stands = threading.Event()
        self.idle = threading.Event()
        self.over = threading.Event()  # its leadership is
        self.election = None
        # The lock has no word for having its watch on the node in front; its client's method has.
        get = self.client.get

        def watched(node, watch=None):
            answer = get(node, watch)
            if watch is not None:
                self.stands.set()
            return answer

        self.client.get = watched
        threading.Thread(target=self.run, daemon=True).start()

    def listen(self, state):
        if state == KazooState.LOST:
            self.over.set()

    def join(self):
        self.wanted = True
        self.stands.clear()
        self.idle.clear()
        self.join_now.release()

    def leave(self):
        self.wanted = False
        self.over.set()  # if it leads
        self.election.cancel()  # if it waits
        self.idle.wait()

    def disconnect(self):
        self.ended = True
        self.join_now.release()
        self.client.stop()
        self.client.close()

    def run(self):
        while True:
            self.join_now.acquire()
            if self.ended:
                return
            while self.wanted:
                self.over.clear()
                # A lock that could not be released is of no use any more.
                self.election = self.client.Election(path, str(self.number))
                try:
                    self.election.run(self.lead)
                except KazooException:
                    time.sleep(0.01)
            self.idle.set()

    def lead(self):
        global leader, won
        at = time.monotonic_ns()  # CLOCK_MONOTONIC
        session = self.client.client_id
        with changed:
            leader, won = self, at
            say("leads %d %d" % (at, session[0] if session else 0))
            changed.notify_all()
        self.stands.set()
        self.over.wait()
        self.began = time.monotonic_ns()


def join():
    began = time.monotonic_ns()
    for c in candidates:
        if not c.wanted:
            c.join()
    for c in candidates:
        c.stands.wait()
    say("joined %d" % (time.monotonic_ns() - began))


def resign():
    with changed:
        former = leader
    before = time.monotonic_ns()
    former.leave()
    with changed:
        changed.wait_for(lambda: won > before)
        say("led %d 0" % (won - former.began))


def leave():
    with changed:
        last = leader
    for c in candidates:
        if c is not last and c.wanted:
            c.leave()
    if last is not None and last.wanted:
        last.leave()
    say("left")


def disconnect():
    """Closes the clients of those that do not stand; one alone is not waited for."""
    closing = [threading.Thread(target=c.disconnect) for c in candidates if not c.wanted]
    for thread in closing:
        thread.start()
    if len(closing) > 1:
        for thread in closing:
            thread.join()


def renew():
    disconnect()
    for i, c in enumerate(candidates):
        if not c.wanted:
            candidates[i] = Candidate(i)
    for c in candidates:
        c.connected.wait()
    say("renewed")


candidates = [Candidate(i) for i in range(n)]
for c in candidates:
    c.connected.wait()
say("ready")
commands = {"join": join, "resign": resign, "leave": leave, "renew": renew}
for line in sys.stdin:
    try:
        commands[line.strip()]()
    except Exception:
        traceback.print_exc()
        os._exit(1)
disconnect()
os._exit(0)
