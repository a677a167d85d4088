// Kafka's own command-line tools, one after the other in one process, because each would start for seconds.
// usage: java Tools. Each line of the standard input is a call: the tool's class and its arguments, with tabs between.
// What the tool prints comes out line by line, `out TEXT` and `err TEXT`, and `exit CODE` at its end.

import java.io.*;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.kafka.common.utils.Exit;

public class Tools {
    /** What a tool is stopped with where it ends the process; some catch it and want to end it once more. */
    static class Exited extends Error {
        Exited() {
            super(null, null, false, false);
        }
    }

    static Integer code;

    public static void main(String[] args) throws IOException {
        PrintStream out = System.out;
        Exit.Procedure exit = (status, message) -> {
            if (code == null) {
                code = status;
                silence();
            }
            throw new Exited();
        };
        Exit.setExitProcedure(exit);
        Exit.setHaltProcedure(exit);
        BufferedReader calls = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = calls.readLine(); line != null; line = calls.readLine()) {
            String[] call = line.split("\t");
            ByteArrayOutputStream said = new ByteArrayOutputStream();
            ByteArrayOutputStream complained = new ByteArrayOutputStream();
            System.setOut(new PrintStream(said, true));
            System.setErr(new PrintStream(complained, true));
            code = null;
            call(call[0], Arrays.copyOfRange(call, 1, call.length));
            silence();
            said.toString().lines().forEach(text -> out.println("out " + text));
            complained.toString().lines().forEach(text -> out.println("err " + text));
            out.println("exit " + (code == null ? 0 : code));
            out.flush();
        }
    }

    /** From here on nothing is printed any more: what follows an exit is about the exit. */
    static void silence() {
        System.setOut(new PrintStream(OutputStream.nullOutputStream()));
        System.setErr(new PrintStream(OutputStream.nullOutputStream()));
    }

    static void call(String tool, String[] args) {
        try {
            Class.forName(tool).getMethod("main", String[].class).invoke(null, (Object) args);
        } catch (InvocationTargetException failed) {
            if (code == null) {
                failed.getCause().printStackTrace();
                code = 1;
            }
        } catch (ReflectiveOperationException none) {
            System.err.println(none);
            code = 127;
        }
    }
}
