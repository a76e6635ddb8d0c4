import java.util.Collection;
import java.util.HashSet;
import java.util.Set;

/** Says in which order Java's sets give the strings that TestJavaSetIsOrderedAsJavaDoes puts into its own. */
public class Order {
    static void say(String name, Collection<String> list) {
        System.out.println(name + " " + String.join(",", list));
    }

    static String ballot(int i) {
        return String.format("ballot-%010d", i);
    }

    public static void main(String[] args) {
        for (int n : new int[] {1, 5, 6, 7, 12, 13, 24, 25, 48, 49, 100, 1000, 20000}) {
            HashSet<String> ballots = new HashSet<>(8);
            Set<String> numbers = new HashSet<>();
            Set<String> strange = new HashSet<>(8);
            for (int i = 0; i < n; i++) {
                ballots.add(ballot(i));
                numbers.add("n" + i * 7919L);
                strange.add("\u00e4\ud83d\ude00" + i + "Aa".repeat(i % 5) + "BB".repeat(i % 3));
            }
            say("ballots", ballots);
            say("numbers", numbers);
            say("strange", strange);
            for (int i = 0; i < n; i += 2) {
                ballots.remove(ballot(i));
            }
            for (int i = n; i < n + n / 4; i++) {
                ballots.add(ballot(i));
            }
            for (int i = 0; i < n; i += 4) {
                ballots.add(ballot(i));
            }
            say("changed", ballots);
            say("copied", (Collection<String>) ballots.clone());
        }
        // Those of Aa and BB have one hash.
        Set<String> full = new HashSet<>(8);
        for (int i = 0; i < 9; i++) {
            String text = "";
            for (int bit = 0; bit < 4; bit++) {
                text += (i >> bit & 1) == 0 ? "Aa" : "BB";
            }
            full.add(text);
            full.add("x" + i);
        }
        say("full bucket", full);
    }
}
