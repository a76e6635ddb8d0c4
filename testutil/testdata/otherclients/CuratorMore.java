import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.VersionedValue;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.retry.RetryOneTime;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;

/** Uses what else Curator offers, on the server given, and says what it saw. */
public class CuratorMore {
    static CuratorFramework connect(String server, String... auth) throws Exception {
        CuratorFrameworkFactory.Builder builder = CuratorFrameworkFactory.builder().connectString(server)
            .sessionTimeoutMs(10_000).connectionTimeoutMs(10_000).retryPolicy(new RetryOneTime(100));
        if (auth.length > 0) {
            builder.authorization("digest", auth[0].getBytes());
        }
        CuratorFramework client = builder.build();
        client.start();
        if (!client.blockUntilConnected(20, TimeUnit.SECONDS)) {
            throw new IllegalStateException("not connected");
        }
        return client;
    }

    static void say(String what, Callable<?> call) throws Exception {
        try {
            System.out.println(what + " " + show(call.call()));
        } catch (KeeperException error) {
            System.out.println(what + " fails: " + error.code() + " " + error.getPath());
        }
    }

    /** Leaves out of a Stat only what differs from one run to the next. */
    static String show(Object value) {
        if (value instanceof byte[]) {
            return new String((byte[]) value);
        }
        if (value instanceof Stat) {
            Stat s = (Stat) value;
            return "czxid " + s.getCzxid() + " mzxid " + s.getMzxid() + " pzxid " + s.getPzxid() + " versions " + s.getVersion() + " "
                + s.getCversion() + " " + s.getAversion() + " length " + s.getDataLength() + " children " + s.getNumChildren()
                + " ephemeral " + (s.getEphemeralOwner() != 0);
        }
        if (value instanceof List) {
            return ((List<?>) value).stream().map(CuratorMore::show).collect(Collectors.toList()).toString();
        }
        if (value instanceof CuratorTransactionResult) {
            CuratorTransactionResult r = (CuratorTransactionResult) value;
            return r.getType() + " " + r.getForPath() + " " + r.getResultPath() + " " + r.getError() + " " + show(r.getResultStat());
        }
        if (value instanceof ACL) {
            ACL acl = (ACL) value;
            return acl.getId().getScheme() + ":" + acl.getId().getId() + ":" + acl.getPerms();
        }
        return String.valueOf(value);
    }

    public static void main(String[] args) throws Exception {
        CuratorFramework one = connect(args[0], "ann:secret");
        CuratorFramework two = connect(args[0]);

        Stat stat = new Stat();
        say("create", () -> one.create().creatingParentsIfNeeded().forPath("/more/a/b", "x".getBytes()));
        say("create again", () -> one.create().forPath("/more/a/b"));
        say("create in the void", () -> one.create().forPath("/none/x"));
        say("create or set", () -> one.create().orSetData().forPath("/more/a/b", "y".getBytes()));
        say("create and stat", () -> {
            String path = one.create().storingStatIn(stat).withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath("/more/n-", "12".getBytes());
            return path + " " + show(stat);
        });
        say("create a container", () -> one.create().withMode(CreateMode.CONTAINER).forPath("/more/container"));
        say("create with a time to live", () -> one.create().withTtl(100_000).withMode(CreateMode.PERSISTENT_WITH_TTL).forPath("/more/ttl"));
        say("create compressed", () -> one.create().compressed().forPath("/more/zip", "zip zip zip zip".getBytes()));
        say("read compressed", () -> two.getData().decompressed().forPath("/more/zip"));
        say("read and stat", () -> {
            byte[] data = two.getData().storingStatIn(stat).forPath("/more/a/b");
            return show(data) + " " + show(stat);
        });
        say("read nothing", () -> two.getData().forPath("/none"));
        say("exists", () -> two.checkExists().forPath("/more"));
        say("exists not", () -> two.checkExists().forPath("/none"));
        say("set a version", () -> two.setData().withVersion(7).forPath("/more/a/b"));
        say("set the version", () -> two.setData().withVersion(1).forPath("/more/a/b", "z".getBytes()));
        say("delete with children", () -> two.delete().forPath("/more/a"));
        say("delete quietly", () -> two.delete().quietly().forPath("/none"));
        say("delete a version", () -> two.delete().withVersion(7).forPath("/more/a/b"));
        say("delete all", () -> two.delete().guaranteed().deletingChildrenIfNeeded().forPath("/more/a"));
        say("sync", () -> two.sync().forPath("/more"));
        say("config", () -> show(two.getConfig().forEnsemble()).replaceAll("\n", " "));
        for (String name : new String[] {"zebra", "apple", "mango", "q", "kiwi-1", "\u00e4", "x".repeat(40)}) {
            one.create().creatingParentsIfNeeded().forPath("/more/children/" + name);
        }
        say("children", () -> two.getChildren().storingStatIn(stat).forPath("/more/children"));
        System.out.println("children " + show(stat));
        say("root", () -> two.getChildren().forPath("/"));

        say("create for oneself", () -> one.create().withACL(ZooDefs.Ids.CREATOR_ALL_ACL).forPath("/more/mine"));
        say("acl", () -> one.getACL().storingStatIn(stat).forPath("/more/mine"));
        say("a stranger reads", () -> two.getData().forPath("/more/mine"));
        say("a stranger sets the acl", () -> two.setACL().withACL(ZooDefs.Ids.OPEN_ACL_UNSAFE).forPath("/more/mine"));
        say("set the acl", () -> one.setACL().withVersion(0).withACL(List.of(new ACL(ZooDefs.Perms.READ, new Id("world", "anyone")),
            new ACL(ZooDefs.Perms.ALL, new Id("digest", "bob:x")))).forPath("/more/mine"));
        say("a stranger sees", () -> two.getACL().forPath("/more/mine"));
        say("an acl that is none", () -> one.setACL().withACL(List.of(new ACL(1, new Id("nonsense", "x")))).forPath("/more"));

        say("transaction", () -> one.transaction().forOperations(
            one.transactionOp().create().withMode(CreateMode.PERSISTENT).forPath("/more/t", "1".getBytes()),
            one.transactionOp().setData().withVersion(0).forPath("/more/t", "22".getBytes()),
            one.transactionOp().check().withVersion(1).forPath("/more/t"),
            one.transactionOp().create().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath("/more/t/n-"),
            one.transactionOp().delete().forPath("/more/t/n-0000000000")));
        try {
            one.transaction().forOperations(one.transactionOp().create().forPath("/more/u"),
                one.transactionOp().check().withVersion(7).forPath("/more/t"), one.transactionOp().delete().forPath("/more/t"));
        } catch (KeeperException error) {
            System.out.println("transaction fails: " + error.code() + " " + error.getResults().stream()
                .map(r -> r.getClass().getSimpleName() + " " + r.getType()).collect(Collectors.toList()));
        }

        // In the background.
        BlockingQueue<String> done = new LinkedBlockingQueue<>();
        one.create().inBackground((client, event) -> done.add(event.getType() + " " + event.getResultCode() + " " + event.getPath())).forPath("/more/bg");
        System.out.println("background " + done.poll(20, TimeUnit.SECONDS));
        one.create().inBackground((client, event) -> done.add(event.getType() + " " + event.getResultCode() + " " + event.getPath())).forPath("/more/bg");
        System.out.println("background " + done.poll(20, TimeUnit.SECONDS));
        one.getChildren().inBackground((client, event) -> done.add(event.getType() + " " + event.getChildren())).forPath("/more/children");
        System.out.println("background " + done.poll(20, TimeUnit.SECONDS));

        // Watches.
        BlockingQueue<String> seen = new LinkedBlockingQueue<>();
        Watcher watcher = event -> seen.add(event.getType() + " " + event.getState() + " " + event.getPath());
        two.getData().usingWatcher(watcher).forPath("/more/t");
        one.setData().forPath("/more/t");
        System.out.println("event " + seen.poll(20, TimeUnit.SECONDS));
        two.getChildren().usingWatcher(watcher).forPath("/more/t");
        one.create().forPath("/more/t/x");
        System.out.println("event " + seen.poll(20, TimeUnit.SECONDS));
        two.checkExists().usingWatcher(watcher).forPath("/more/t/y");
        one.create().forPath("/more/t/y");
        System.out.println("event " + seen.poll(20, TimeUnit.SECONDS));
        two.checkExists().usingWatcher(watcher).forPath("/more/t/y");
        say("remove a watch", () -> two.watches().remove(watcher).forPath("/more/t/y"));
        System.out.println("event " + seen.poll(20, TimeUnit.SECONDS));
        say("remove it again", () -> two.watches().remove(watcher).forPath("/more/t/y"));

        CountDownLatch set = new CountDownLatch(1);
        PersistentWatcher persistent = new PersistentWatcher(two, "/more/p", true);
        persistent.getListenable().addListener(event -> {
            if (event.getPath() != null) {
                seen.add(event.getType() + " " + event.getPath());
            }
        });
        persistent.getResetListenable().addListener(set::countDown);
        persistent.start();
        set.await(20, TimeUnit.SECONDS);
        one.create().creatingParentsIfNeeded().forPath("/more/p/q/r");
        one.setData().forPath("/more/p/q");
        one.delete().deletingChildrenIfNeeded().forPath("/more/p");
        for (int i = 0; i < 7; i++) {
            System.out.println("persistent " + seen.poll(20, TimeUnit.SECONDS));
        }
        persistent.close();

        // Recipes.
        DistributedAtomicLong counter = new DistributedAtomicLong(one, "/more/counter", new RetryOneTime(10));
        counter.add(40L);
        AtomicValue<Long> value = new DistributedAtomicLong(two, "/more/counter", new RetryOneTime(10)).add(2L);
        System.out.println("counter " + value.succeeded() + " " + value.preValue() + " " + value.postValue());

        SharedCount shared = new SharedCount(one, "/more/shared", 7);
        SharedCount other = new SharedCount(two, "/more/shared", 1);
        shared.start();
        other.start();
        VersionedValue<Integer> before = other.getVersionedValue();
        shared.setCount(8);
        System.out.println("shared count " + before.getValue() + " " + other.trySetCount(before, 9) + " " + shared.getCount());
        shared.close();
        other.close();

        InterProcessReadWriteLock lock = new InterProcessReadWriteLock(one, "/more/rw");
        InterProcessReadWriteLock their = new InterProcessReadWriteLock(two, "/more/rw");
        System.out.println("read " + lock.readLock().acquire(20, TimeUnit.SECONDS) + " " + their.readLock().acquire(20, TimeUnit.SECONDS)
            + " write " + their.writeLock().getParticipantNodes().size());
        lock.readLock().release();
        their.readLock().release();
        System.out.println("write " + their.writeLock().acquire(20, TimeUnit.SECONDS) + " read " + lock.readLock().acquire(200, TimeUnit.MILLISECONDS));
        their.writeLock().release();

        InterProcessSemaphoreV2 semaphore = new InterProcessSemaphoreV2(one, "/more/semaphore", 2);
        InterProcessSemaphoreV2 theirs = new InterProcessSemaphoreV2(two, "/more/semaphore", 2);
        Lease first = semaphore.acquire(20, TimeUnit.SECONDS);
        Lease second = theirs.acquire(20, TimeUnit.SECONDS);
        System.out.println("semaphore " + (first != null) + " " + (second != null) + " " + theirs.acquire(200, TimeUnit.MILLISECONDS));
        semaphore.returnLease(first);
        theirs.returnLease(second);

        DistributedBarrier barrier = new DistributedBarrier(one, "/more/barrier");
        barrier.setBarrier();
        System.out.println("barrier " + new DistributedBarrier(two, "/more/barrier").waitOnBarrier(200, TimeUnit.MILLISECONDS));
        barrier.removeBarrier();
        System.out.println("barrier " + new DistributedBarrier(two, "/more/barrier").waitOnBarrier(20, TimeUnit.SECONDS));

        List<Boolean> entered = new ArrayList<>();
        Thread partner = new Thread(() -> {
            try {
                entered.add(new DistributedDoubleBarrier(two, "/more/double", 2).enter(20, TimeUnit.SECONDS));
            } catch (Exception error) {
                error.printStackTrace();
            }
        });
        partner.start();
        System.out.println("double barrier " + new DistributedDoubleBarrier(one, "/more/double", 2).enter(20, TimeUnit.SECONDS));
        partner.join(20_000);
        System.out.println("double barrier " + entered);

        PersistentNode node = new PersistentNode(one, CreateMode.EPHEMERAL, false, "/more/persistent", "p".getBytes());
        node.start();
        System.out.println("persistent node " + node.waitForInitialCreate(20, TimeUnit.SECONDS));
        two.checkExists().usingWatcher(watcher).forPath("/more/persistent");
        two.delete().forPath("/more/persistent");
        System.out.println("event " + seen.poll(20, TimeUnit.SECONDS));
        while (two.checkExists().forPath("/more/persistent") == null) {
            Thread.sleep(10); // it makes another
        }
        node.close();

        PersistentTtlNode ttl = new PersistentTtlNode(one, "/more/keep", 60_000, "t".getBytes());
        ttl.start();
        System.out.println("ttl node " + ttl.waitForInitialCreate(20, TimeUnit.SECONDS));
        ttl.close();

        GroupMember member = new GroupMember(one, "/more/group", "first");
        GroupMember guest = new GroupMember(two, "/more/group", "second");
        member.start();
        guest.start();
        while (member.getCurrentMembers().size() < 2) {
            Thread.sleep(10);
        }
        System.out.println("group " + new TreeSet<>(member.getCurrentMembers().keySet()));
        guest.close();
        member.close();

        BlockingQueue<String> led = new LinkedBlockingQueue<>();
        LeaderSelector[] selectors = new LeaderSelector[2];
        for (int i = 0; i < 2; i++) {
            String name = "leader " + i;
            selectors[i] = new LeaderSelector(i == 0 ? one : two, "/more/selector", new LeaderSelectorListenerAdapter() {
                @Override
                public void takeLeadership(CuratorFramework client) {
                    led.add(name);
                }
            });
            selectors[i].setId(name);
            selectors[i].start();
            System.out.println("selected " + led.poll(20, TimeUnit.SECONDS));
            selectors[i].close();
        }

        // The end of a session.
        one.create().withMode(CreateMode.EPHEMERAL).forPath("/more/mortal");
        two.checkExists().usingWatcher(watcher).forPath("/more/mortal");
        one.close();
        System.out.println("event " + seen.poll(20, TimeUnit.SECONDS));
        say("left", () -> two.getChildren().forPath("/more").stream().sorted().collect(Collectors.toList()));
        two.close();
    }
}
