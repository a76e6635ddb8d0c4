"""Uses what else kazoo offers, on the server given, and says what it saw."""

import queue
import sys
import threading

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.security import make_acl, make_digest_acl

PATIENCE = 20


def connect():
    client = KazooClient(hosts=sys.argv[1], timeout=10)
    client.start(timeout=PATIENCE)
    return client


def say(what, call):
    try:
        print(what, call())
    except KazooException as error:
        print(what, "raises", type(error).__name__)


one, two = connect(), connect()

print("version", one.server_version())
print("ruok", one.command(b"ruok"), "isro", one.command(b"isro"))

# The order of children is the server's.
one.ensure_path("/more/children")
for name in ["zebra", "apple", "mango", "b", "a", "\u00e4", "kiwi-1", "kiwi-2", "x" * 40]:
    one.create("/more/children/" + name)
print("children", one.get_children("/more/children"))
for i in range(20):
    one.create("/more/children/n-", sequence=True, ephemeral=i % 2 == 0)
print("children", one.get_children("/more/children"))
one.delete("/more/children/n-0000000010")
children, stat = one.get_children("/more/children", include_data=True)
print("children", children, stat.numChildren, stat.children_version)

say("create in the void", lambda: one.create("/none/x"))
say("delete recursively", lambda: one.delete("/more/children", recursive=True))
say("get", lambda: one.get("/more/children"))
say("set a version", lambda: one.set("/more", b"x", version=3))
say("set", lambda: one.set("/more", b"x").version)
say("child of an ephemeral", lambda: (one.create("/more/e", ephemeral=True), one.create("/more/e/x")))
say("delete the config", lambda: one.delete("/zookeeper/config"))
say("create at the root", lambda: one.create("/"))
say("root", lambda: two.get_children("/"))
say("sync", lambda: two.sync("/more"))

one.add_auth("digest", "ann:secret")
acl = [make_digest_acl("ann", "secret", all=True), make_acl("world", "anyone", read=True)]
one.create("/more/acl", b"", acl=acl)
say("acls", lambda: [str(a) for a in one.get_acls("/more/acl")[0]])
say("acls of a stranger", lambda: [str(a) for a in two.get_acls("/more/acl")[0]])
say("set acls of a stranger", lambda: two.set_acls("/more/acl", acl))
say("set acls", lambda: one.set_acls("/more/acl", acl[:1]).aversion)
say("read of a stranger", lambda: two.get("/more/acl"))
say("exists for a stranger", lambda: two.exists("/more/acl").aversion)

transaction = one.transaction()
transaction.create("/more/t", b"1")
transaction.set_data("/more/t", b"2")
transaction.check("/more/t", 1)
transaction.create("/more/t/n-", sequence=True)
transaction.delete("/more/t/n-0000000000")
print("transaction", [r if isinstance(r, (str, bool)) else r.version for r in transaction.commit()])
transaction = one.transaction()
transaction.create("/more/u")
transaction.delete("/more/none")
transaction.create("/more/v")
print("transaction", [type(r).__name__ for r in transaction.commit()])

# Recipes.
counter = one.Counter("/more/counter")
counter += 2
counter -= 5
print("counter", two.Counter("/more/counter").value)

work = one.Queue("/more/queue")
for item in [b"first", b"second", b"urgent"]:
    work.put(item, priority=1 if item == b"urgent" else 100)
print("queue", len(work), [two.Queue("/more/queue").get() for _ in range(4)])

locking = one.LockingQueue("/more/locking")
locking.put(b"job")
taken = two.LockingQueue("/more/locking")
print("locking queue", taken.get(timeout=PATIENCE), taken.holds_lock(), taken.consume(), len(taken))

lock = one.Lock("/more/lock", "one")
lock.acquire(timeout=PATIENCE)
other = two.Lock("/more/lock", "two")
print("lock", other.acquire(blocking=False), other.contenders())
lock.release()
print("lock", other.acquire(timeout=PATIENCE))
other.release()

read = one.ReadLock("/more/rw", "reader")
write = two.WriteLock("/more/rw", "writer")
print("read lock", read.acquire(timeout=PATIENCE), write.acquire(blocking=False))
read.release()

semaphore = one.Semaphore("/more/semaphore", "one", max_leases=2)
semaphore.acquire(timeout=PATIENCE)
second = two.Semaphore("/more/semaphore", "two", max_leases=2)
print("semaphore", second.acquire(timeout=PATIENCE), sorted(second.lease_holders()))
third = two.Semaphore("/more/semaphore", "three", max_leases=2)
print("semaphore", third.acquire(blocking=False))
semaphore.release()
second.release()

party = one.Party("/more/party", "one")
party.join()
guest = two.ShallowParty("/more/party", "two")
print("party", sorted(two.Party("/more/party", "x")))
party.leave()
print("party", len(party))

barrier = one.Barrier("/more/barrier")
barrier.create()
passed = queue.Queue()
waiter = threading.Thread(target=lambda: passed.put(two.Barrier("/more/barrier").wait(PATIENCE)), daemon=True)
waiter.start()
barrier.remove()
print("barrier", passed.get(timeout=PATIENCE))

# Watches.
seen = queue.Queue()
two.DataWatch("/more/watched", lambda data, stat: seen.put((data, stat and stat.version)))
print("data", seen.get(timeout=PATIENCE))
one.create("/more/watched", b"1")
print("data", seen.get(timeout=PATIENCE))
one.set("/more/watched", b"2")
print("data", seen.get(timeout=PATIENCE))
one.delete("/more/watched")
print("data", seen.get(timeout=PATIENCE))
events = queue.Queue()
two.exists("/more/once", watch=lambda event: events.put((event.type, event.path, event.state)))
one.create("/more/once")
print("event", events.get(timeout=PATIENCE))
two.get_children("/more/once", watch=lambda event: events.put((event.type, event.path, event.state)))
one.delete("/more/once")
print("event", events.get(timeout=PATIENCE))

# A session that is resumed by another client: its nodes stay.
session, password = two.client_id
two.create("/more/mine", ephemeral=True)
heir = KazooClient(hosts=sys.argv[1], timeout=10, client_id=(session, password))
heir.start(timeout=PATIENCE)
print("heir", heir.client_id[0] == session, heir.exists("/more/mine") is not None)
heir.stop()
print("after its end", one.exists("/more/mine"))
one.stop()
