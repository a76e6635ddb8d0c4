import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.Participant;
import org.apache.curator.retry.ExponentialBackoffRetry;

/**
 * A candidate of Curator's LeaderLatch, which writes the same history as the agent: NAME SERVERS PATH TIMEOUT_MS. It asks
 * hasLeadership every 3 ms, and ends when its standard input does. System.nanoTime is CLOCK_MONOTONIC here.
 */
public class CuratorPeer {
    static String name;

    static synchronized void write(String kind, long at, long after) {
        System.out.printf("{\"t\":%d,\"a\":%d,\"w\":\"%s\",\"k\":\"%s\",\"n\":1}%n", at, after, name, kind);
        System.out.flush();
    }

    static void write(String kind) {
        write(kind, System.nanoTime(), 0);
    }

    public static void main(String[] args) throws Exception {
        name = args[0];
        int timeout = Integer.parseInt(args[3]);
        CuratorFramework client = CuratorFrameworkFactory.newClient(args[1], timeout, timeout, new ExponentialBackoffRetry(100, 29));
        client.start();
        LeaderLatch latch = new LeaderLatch(client, args[2], name);
        latch.start();
        Thread standing = new Thread(() -> {
            try {
                while (true) {
                    for (Participant p : latch.getParticipants()) {
                        if (p.getId().equals(name)) {
                            write("voted");
                            return;
                        }
                    }
                    Thread.sleep(20);
                }
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        });
        standing.setDaemon(true);
        standing.start();
        Thread samples = new Thread(() -> {
            boolean led = false;
            while (true) {
                long before = System.nanoTime();
                boolean leads = latch.hasLeadership();
                long after = System.nanoTime();
                if (leads) {
                    write("true", before, after);
                } else if (led) {
                    write("false", before, after);
                }
                if (leads && !led) {
                    write("acked"); // the latch has no word of its own for it
                }
                led = leads;
                try {
                    Thread.sleep(3);
                } catch (InterruptedException e) {
                    return;
                }
            }
        });
        samples.setDaemon(true);
        samples.start();
        while (System.in.read() >= 0) {
            // Whatever is said, it goes on.
        }
        Runtime.getRuntime().halt(0);
    }
}
