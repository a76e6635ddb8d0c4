import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.concurrent.CountDownLatch;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderLatchListener;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.zookeeper.AsyncCallback;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooKeeper;

/**
 * Candidates of Curator's LeaderLatch, each on a session of its own: SERVERS PATH TIMEOUT_MS N. ../contestant says what is
 * asked and answered. System.nanoTime is CLOCK_MONOTONIC here.
 */
public class CuratorContestant {
    static Candidate[] candidates;
    static String path;
    static int leader = -1; // guarded by the class, as is won
    static long won;

    static class Candidate implements LeaderLatchListener {
        final int number;
        final CuratorFramework client;
        LeaderLatch latch; // null while it does not stand
        volatile CountDownLatch stands = new CountDownLatch(1);

        Candidate(int number, String servers, int timeout) {
            this.number = number;
            client = CuratorFrameworkFactory.builder()
                    .connectString(servers)
                    .sessionTimeoutMs(timeout)
                    .connectionTimeoutMs(timeout)
                    .retryPolicy(new ExponentialBackoffRetry(100, 29))
                    .zookeeperFactory((connect, sessionTimeout, watcher, readOnly) ->
                            new Watched(connect, sessionTimeout, watcher, readOnly, this))
                    .build();
            client.start();
        }

        void join() throws Exception {
            stands = new CountDownLatch(1);
            latch = new LeaderLatch(client, path, Integer.toString(number));
            latch.addListener(this);
            latch.start();
        }

        void leave() throws Exception {
            latch.close();
            latch = null;
        }

        @Override
        public void isLeader() {
            long at = System.nanoTime();
            synchronized (CuratorContestant.class) {
                leader = number;
                won = at;
                try {
                    say("leads " + at + " " + client.getZookeeperClient().getZooKeeper().getSessionId());
                } catch (Exception e) {
                    throw new IllegalStateException(e);
                }
                CuratorContestant.class.notifyAll();
            }
            stands.countDown();
        }

        @Override
        public void notLeader() {
        }
    }

    /** The client, which tells when the latch has its watch on the node in front: the latch has no word for that. */
    static class Watched extends ZooKeeper {
        final Candidate candidate;

        Watched(String servers, int timeout, Watcher watcher, boolean readOnly, Candidate candidate) throws java.io.IOException {
            super(servers, timeout, watcher, readOnly);
            this.candidate = candidate;
        }

        @Override
        public void getData(String node, Watcher watcher, AsyncCallback.DataCallback callback, Object context) {
            super.getData(node, watcher, (code, p, c, data, stat) -> {
                if (watcher != null && code == KeeperException.Code.OK.intValue() && p.startsWith(path + "/")) {
                    candidate.stands.countDown();
                }
                callback.processResult(code, p, c, data, stat);
            }, context);
        }
    }

    static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    static void join() throws Exception {
        long began = System.nanoTime();
        for (Candidate c : candidates) {
            if (c.latch == null) {
                c.join();
            }
        }
        for (Candidate c : candidates) {
            c.stands.await();
        }
        say("joined " + (System.nanoTime() - began));
    }

    static void resign() throws Exception {
        Candidate former;
        synchronized (CuratorContestant.class) {
            former = candidates[leader];
        }
        long began = System.nanoTime();
        former.leave();
        synchronized (CuratorContestant.class) {
            while (won < began) {
                CuratorContestant.class.wait();
            }
            say("led " + (won - began) + " 0");
        }
    }

    static void leave() throws Exception {
        int last;
        synchronized (CuratorContestant.class) {
            last = leader;
        }
        for (Candidate c : candidates) {
            if (c.number != last && c.latch != null) {
                c.leave();
            }
        }
        if (last >= 0 && candidates[last].latch != null) {
            candidates[last].leave();
        }
        // Ballots are deleted in the background, each on its own connection and in order: an answer to what is asked after
        // that says that it is done.
        for (Candidate c : candidates) {
            c.client.checkExists().forPath(path);
        }
        say("left");
    }

    /**
     * Gives those that do not stand new sessions. To close one takes 0.1 s, which the client sleeps under a lock that all
     * clients of a JVM share (it is an enum's constant): so it is waited for, and this is not done between times that count.
     */
    static void connect(String servers, int timeout) throws Exception {
        for (int i = 0; i < candidates.length; i++) {
            if (candidates[i] == null || candidates[i].latch == null) {
                if (candidates[i] != null) {
                    candidates[i].client.close();
                }
                candidates[i] = new Candidate(i, servers, timeout);
            }
        }
        for (Candidate c : candidates) {
            c.client.blockUntilConnected();
        }
    }

    public static void main(String[] args) throws Exception {
        path = args[1];
        candidates = new Candidate[Integer.parseInt(args[3])];
        connect(args[0], Integer.parseInt(args[2]));
        say("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            try {
                switch (line) {
                    case "join" -> join();
                    case "resign" -> resign();
                    case "leave" -> leave();
                    case "renew" -> {
                        connect(args[0], Integer.parseInt(args[2]));
                        say("renewed");
                    }
                    default -> throw new IllegalArgumentException(line);
                }
            } catch (Exception e) {
                e.printStackTrace();
                Runtime.getRuntime().halt(1);
            }
        }
        Runtime.getRuntime().halt(0); // closing all would take long
    }
}
