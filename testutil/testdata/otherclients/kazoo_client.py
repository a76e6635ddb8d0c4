"""Uses kazoo as a service would, on the server given, and says what it saw."""

import queue
import sys
import threading

from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, NoAuthError, NodeExistsError, NotEmptyError
from kazoo.security import make_digest_acl

PATIENCE = 20


def connect():
    client = KazooClient(hosts=sys.argv[1], timeout=10)
    client.start(timeout=PATIENCE)
    return client


def refused(error, call):
    try:
        call()
    except error:
        print("refused", error.__name__)


one, two = connect(), connect()

print("created", one.create("/kazoo/n-", b"hello", sequence=True, ephemeral=True, makepath=True))
data, stat = two.get("/kazoo/n-0000000000")
print("data", data.decode(), stat.version, stat.ephemeralOwner == one.client_id[0], stat.dataLength)
two.set("/kazoo/n-0000000000", b"changed")
refused(BadVersionError, lambda: one.set("/kazoo/n-0000000000", b"", version=0))
refused(NodeExistsError, lambda: one.create("/kazoo"))
refused(NotEmptyError, lambda: one.delete("/kazoo"))

transaction = one.transaction()
transaction.create("/kazoo/t")
transaction.check("/kazoo/t", 0)
transaction.delete("/kazoo/n-0000000000", version=7)
print("transaction", [type(r).__name__ for r in transaction.commit()], one.exists("/kazoo/t"))

one.add_auth("digest", "ann:secret")
one.create("/kazoo/secret", b"s", acl=[make_digest_acl("ann", "secret", all=True)])
refused(NoAuthError, lambda: two.get("/kazoo/secret"))
two.add_auth("digest", "ann:secret")
print("data", two.get("/kazoo/secret")[0].decode())

changes = queue.Queue()
two.ensure_path("/kazoo/watched")
two.ChildrenWatch("/kazoo/watched", lambda children: changes.put(sorted(children)))
print("children", changes.get(timeout=PATIENCE))
one.create("/kazoo/watched/a", ephemeral=True)
print("children", changes.get(timeout=PATIENCE))

# An election: the leader works until its session ends.
led = queue.Queue()
leave = threading.Event()


def lead(name):
    led.put(name)
    if name == "first":
        leave.wait(PATIENCE)


def contend(client, name):
    client.Election("/kazoo/election", name).run(lead, name)


first = threading.Thread(target=contend, args=(one, "first"), daemon=True)
first.start()
print("leads", led.get(timeout=PATIENCE))
second = threading.Thread(target=contend, args=(two, "second"), daemon=True)
second.start()
while len(two.Election("/kazoo/election").contenders()) < 2:
    pass
print("contenders", two.Election("/kazoo/election").contenders(), led.empty())
leave.set()
print("leads", led.get(timeout=PATIENCE))
second.join(PATIENCE)

one.stop()
print("children", changes.get(timeout=PATIENCE))
print("left", two.get_children("/kazoo"))
two.stop()
