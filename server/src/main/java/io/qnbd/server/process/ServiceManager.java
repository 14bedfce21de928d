package io.qnbd.server.process;

import io.qnbd.server.os.SystemCalls;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Tells systemd, or who speaks its protocol (sd_notify(3)), how the server is: a datagram to the
 * socket that {@code NOTIFY_SOCKET} names. Without that variable nobody is told. A message that
 * cannot be sent is a warning and no more.
 *
 * <p>Thread-safe.
 */
public final class ServiceManager {
  private static final Logger log = LoggerFactory.getLogger(ServiceManager.class);

  /** The variable that a program which is started by this one must not see. */
  static final String VARIABLE = "NOTIFY_SOCKET";

  /** A status is read by people, and a datagram has its limits. */
  static final int STATUS_CHARS_MAX = 1000;

  private final byte @Nullable [] address;
  private final long pid;

  private ServiceManager(byte @Nullable [] address, long pid) {
    this.address = address;
    this.pid = pid;
  }

  /** Whoever the environment of the process {@code pid}, this one, names. */
  public static ServiceManager of(Map<String, String> environment, long pid) {
    String named = environment.getOrDefault(VARIABLE, "");
    if (named.isEmpty()) {
      return new ServiceManager(null, pid);
    }
    byte[] bytes = named.getBytes(StandardCharsets.UTF_8);
    if (!(named.startsWith("/") || named.startsWith("@"))
        || bytes.length > SystemCalls.UNIX_PATH_BYTES_MAX) {
      log.warn("nobody is told that the server is ready: {}={} is no unix socket", VARIABLE, named);
      return new ServiceManager(null, pid);
    }
    if (named.startsWith("@")) {
      bytes[0] = 0; // the abstract namespace
    }
    return new ServiceManager(bytes, pid);
  }

  /**
   * Clients can connect; also said when a reload is over, well or not.
   *
   * @param status for people, one line
   */
  public void ready(String status) {
    String text = status.lines().findFirst().orElse("");
    String shown = text.substring(0, Math.min(text.length(), STATUS_CHARS_MAX));
    send("READY=1\nMAINPID=" + pid + "\nSTATUS=" + shown);
  }

  /** The configuration is being read again; {@link #ready} follows. */
  public void reloading() {
    send("RELOADING=1\nMONOTONIC_USEC=" + SystemCalls.monotonicMicros());
  }

  /** The server is about to end. */
  public void stopping() {
    send("STOPPING=1");
  }

  private void send(String message) {
    byte[] to = address;
    if (to == null) {
      return;
    }
    int error = SystemCalls.sendDatagram(to, message.getBytes(StandardCharsets.UTF_8));
    if (error < 0) {
      log.warn(
          "telling the service manager {}: {}",
          message.substring(0, message.indexOf('=')),
          SystemCalls.reason(error));
    }
  }
}
