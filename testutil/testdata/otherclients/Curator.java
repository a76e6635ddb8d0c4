import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryOneTime;
import org.apache.zookeeper.CreateMode;

/** Uses Curator as a service would, on the server given, and says what it saw. */
public class Curator {
    static CuratorFramework connect(String server) throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(server, 10_000, 10_000, new RetryOneTime(100));
        client.start();
        if (!client.blockUntilConnected(20, TimeUnit.SECONDS)) {
            throw new IllegalStateException("not connected");
        }
        return client;
    }

    public static void main(String[] args) throws Exception {
        CuratorFramework one = connect(args[0]);
        CuratorFramework two = connect(args[0]);

        String node = one.create().creatingParentContainersIfNeeded().withProtection()
            .withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath("/curator/nodes/n-", "hello".getBytes());
        System.out.println("created " + node.replaceFirst("_c_[0-9a-f-]{36}-", "_c_UUID-"));
        System.out.println("data " + new String(two.getData().forPath(node)));
        System.out.println("transaction " + one.transaction().forOperations(
            one.transactionOp().create().forPath("/curator/a"),
            one.transactionOp().setData().forPath("/curator/a", "x".getBytes()),
            one.transactionOp().delete().forPath("/curator/a")).size());

        // A cache stands on a persistent recursive watch.
        BlockingQueue<String> changes = new LinkedBlockingQueue<>();
        CuratorCache cache = CuratorCache.build(two, "/curator/cached");
        CompletableFuture<Void> ready = new CompletableFuture<>();
        cache.listenable().addListener(CuratorCacheListener.builder()
            .forCreates(n -> changes.add("create " + n.getPath()))
            .forChanges((old, n) -> changes.add("change " + n.getPath() + " " + new String(n.getData())))
            .forDeletes(n -> changes.add("delete " + n.getPath()))
            .forInitialized(() -> ready.complete(null)).build());
        cache.start();
        ready.get(20, TimeUnit.SECONDS);
        one.create().creatingParentsIfNeeded().forPath("/curator/cached/x/y", "1".getBytes());
        for (int i = 0; i < 3; i++) {
            System.out.println("cache " + changes.poll(20, TimeUnit.SECONDS));
        }
        one.setData().forPath("/curator/cached/x/y", "2".getBytes());
        System.out.println("cache " + changes.poll(20, TimeUnit.SECONDS));
        one.delete().forPath("/curator/cached/x/y");
        System.out.println("cache " + changes.poll(20, TimeUnit.SECONDS));
        cache.close();

        InterProcessMutex mine = new InterProcessMutex(one, "/curator/lock");
        InterProcessMutex theirs = new InterProcessMutex(two, "/curator/lock");
        System.out.println("lock " + mine.acquire(20, TimeUnit.SECONDS) + " " + theirs.acquire(200, TimeUnit.MILLISECONDS));
        mine.release();
        System.out.println("lock " + theirs.acquire(20, TimeUnit.SECONDS));
        theirs.release();

        LeaderLatch first = new LeaderLatch(one, "/curator/latch", "first");
        first.start();
        first.await(20, TimeUnit.SECONDS);
        LeaderLatch second = new LeaderLatch(two, "/curator/latch", "second");
        second.start();
        while (first.getParticipants().size() < 2) {
            Thread.sleep(10);
        }
        System.out.println("leader " + second.getLeader().getId() + " " + first.hasLeadership() + " " + second.hasLeadership());
        one.close(); // the session's end, not the latch's
        System.out.println("leader " + second.await(20, TimeUnit.SECONDS) + " " + second.getLeader().getId());
        second.close();

        List<String> left = two.getChildren().forPath("/curator/nodes");
        System.out.println("left " + left);
        two.close();
    }
}
