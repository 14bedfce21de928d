package io.qnbd.server.process;

import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * A shell command that runs beside the server, with its standard streams.
 *
 * <p>Thread-safe.
 */
public final class RunCommand {
  private final Process process;

  private RunCommand(Process process) {
    this.process = process;
  }

  /**
   * Starts {@code sh -c command}.
   *
   * @param variables what the command finds in its environment; an empty value stands for itself
   * @param onEnd runs on another thread when the command has ended
   */
  public static RunCommand start(String command, Map<String, String> variables, Runnable onEnd)
      throws IOException {
    ProcessBuilder builder = new ProcessBuilder("/bin/sh", "-c", command).inheritIO();
    Map<String, String> environment = builder.environment();
    // What was meant for this process would mislead another qnbd.
    SocketActivation.VARIABLES.forEach(environment::remove);
    environment.remove(ServiceManager.VARIABLE);
    environment.remove("tls");
    environment.putAll(variables);
    RunCommand started;
    try {
      started = new RunCommand(builder.start());
    } catch (IOException e) {
      throw new IOException("running the command: " + e.getMessage(), e);
    }
    var _ = started.process.onExit().thenRun(onEnd);
    return started;
  }

  /**
   * Asks the command and the processes that it has started, with SIGTERM, to end, and waits for the
   * command.
   *
   * @return whether it has ended
   */
  public boolean terminate(Duration patience) throws InterruptedException {
    // The shell first: it would go on, or end well, when it sees the end of what it waits for.
    List<ProcessHandle> started = process.descendants().toList();
    process.destroy();
    started.forEach(ProcessHandle::destroy);
    return process.waitFor(patience.toNanos(), TimeUnit.NANOSECONDS);
  }

  /**
   * The command's exit status, 128 and the signal's number if one has ended it. A command that runs
   * is ended with SIGKILL, and those that it has started.
   */
  public int end() throws InterruptedException {
    if (process.isAlive()) {
      // The shell first: it would start its next command when it sees the end of this one.
      List<ProcessHandle> started = process.descendants().toList();
      process.destroyForcibly();
      started.forEach(ProcessHandle::destroyForcibly);
    }
    return process.waitFor();
  }
}
