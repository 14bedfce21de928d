package io.qnbd.server.control;

import java.io.IOException;
import java.io.OutputStream;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.Channel;
import java.nio.channels.Channels;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermission;
import java.time.Duration;
import java.util.HashSet;
import java.util.Set;
import java.util.function.Function;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Answers control requests on a Unix socket, one after another on each connection.
 *
 * <pre>
 * SERVING --stop--> STOPPING  no connection is accepted, no request begun
 *                             --awaitQuiet--> closed: no request is in an image, if it says so
 * </pre>
 *
 * <p>Each client has a platform thread, because a snapshot's file I/O would hold a virtual thread's
 * carrier. The threads are never interrupted: that would close the image's file channel under all.
 *
 * <p>Images are not its own: whoever opened them closes them, after {@link #awaitQuiet}.
 *
 * <p>Thread-safe: {@code clients}, {@code unanswered}, {@code inImages} and {@code stopping} are
 * guarded by the object's monitor.
 */
public final class ControlServer {
  private static final Logger log = LoggerFactory.getLogger(ControlServer.class);

  /** A name is at most 4096 bytes, escaped in JSON at most 24 KiB; a request has three. */
  static final int LINE_BYTES_MAX = 64 << 10;

  /** A person and some scripts; each holds a thread. */
  static final int CLIENTS_MAX = 8;

  private static final Set<PosixFilePermission> OWNER_ONLY =
      Set.of(PosixFilePermission.OWNER_READ, PosixFilePermission.OWNER_WRITE);

  private final Path path;
  private final ServerSocketChannel listener;
  private final Commands commands;
  private final Function<Throwable, String> sentences;
  private final Set<SocketChannel> clients = new HashSet<>();
  private int unanswered;
  private int inImages;
  private boolean stopping;

  private ControlServer(
      Path path,
      ServerSocketChannel listener,
      Commands commands,
      Function<Throwable, String> sentences) {
    this.path = path;
    this.listener = listener;
    this.commands = commands;
    this.sentences = sentences;
  }

  /**
   * Listens on a new socket at {@code path}, which only its owner may use.
   *
   * @param sentences how a failure is told
   * @throws IOException when there is something at {@code path}, or no socket can be made there
   */
  public static ControlServer start(
      Path path, ControlledServer controlled, Function<Throwable, String> sentences)
      throws IOException {
    if (Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
      throw new IOException(
          "listening on " + path + ": the path exists; remove it or choose another");
    }
    ServerSocketChannel listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    boolean done = false;
    try {
      bind(listener, path);
      ControlServer server = new ControlServer(path, listener, new Commands(controlled), sentences);
      Thread.ofPlatform().daemon().name("qnbd-control").start(server::accept);
      done = true;
      return server;
    } finally {
      if (!done) {
        listener.close();
      }
    }
  }

  /** Whoever connected before the mode was set is sent away again. */
  private static void bind(ServerSocketChannel listener, Path path) throws IOException {
    try {
      listener.bind(UnixDomainSocketAddress.of(path));
    } catch (IOException | IllegalArgumentException e) {
      throw new IOException("listening on " + path + ": " + e.getMessage(), e);
    }
    Files.setPosixFilePermissions(path, OWNER_ONLY);
    listener.configureBlocking(false);
    for (SocketChannel early = listener.accept(); early != null; early = listener.accept()) {
      early.close();
    }
    listener.configureBlocking(true);
  }

  /** Takes no more connections and begins no more requests. */
  public void stop() {
    synchronized (this) {
      stopping = true;
    }
    close(listener);
    try {
      Files.deleteIfExists(path);
    } catch (IOException e) {
      log.warn("deleting the socket {}: {}", path, e.getMessage());
    }
  }

  /**
   * Waits until the requests that have begun are answered, then closes the connections.
   *
   * @return false when one was still in an image after {@code bound}; it goes on, and the image
   *     should not be closed under it
   */
  public synchronized boolean awaitQuiet(Duration bound) throws InterruptedException {
    long deadline = System.nanoTime() + bound.toNanos();
    while (unanswered > 0) {
      long millis = (deadline - System.nanoTime()) / 1_000_000;
      if (millis <= 0) {
        break;
      }
      wait(millis);
    }
    clients.forEach(ControlServer::close);
    return inImages == 0;
  }

  private void accept() {
    while (true) {
      try {
        SocketChannel client = listener.accept();
        if (admit(client)) {
          Thread.ofPlatform().daemon().name("qnbd-control-client").start(() -> serve(client));
        } else {
          refuse(client);
        }
      } catch (IOException e) {
        if (!listener.isOpen()) {
          return;
        }
        log.warn("the control socket {} accepts no more: {}", path, e.getMessage());
        return;
      }
    }
  }

  private synchronized boolean admit(SocketChannel client) {
    return !stopping && clients.size() < CLIENTS_MAX && clients.add(client);
  }

  private static void refuse(SocketChannel client) throws IOException {
    try (client) {
      send(client, Commands.failure("too many control connections, at most " + CLIENTS_MAX));
    } catch (IOException e) {
      log.debug("a control client that was refused: {}", e.getMessage());
    }
  }

  private void serve(SocketChannel client) {
    try {
      LineReader lines = new LineReader(Channels.newInputStream(client), LINE_BYTES_MAX);
      boolean open = true;
      while (open) {
        open =
            switch (lines.next()) {
              case LineReader.Next.Line line -> answer(client, line.bytes);
              case LineReader.Next.TooLong() -> {
                send(
                    client, Commands.failure("a request has at most " + LINE_BYTES_MAX + " bytes"));
                yield true;
              }
              case LineReader.Next.End() -> false;
            };
      }
    } catch (IOException e) {
      log.debug("a control client went away: {}", e.getMessage());
    } finally {
      synchronized (this) {
        clients.remove(client);
      }
      close(client);
    }
  }

  /** Answers a request; false when the server stops and does it no more. */
  private boolean answer(SocketChannel client, byte[] line) throws IOException {
    synchronized (this) {
      if (stopping) {
        return false;
      }
      unanswered++;
      inImages++;
    }
    try {
      send(client, replyTo(line));
    } finally {
      synchronized (this) {
        unanswered--;
        notifyAll();
      }
    }
    return true;
  }

  private String replyTo(byte[] line) {
    try {
      ControlRequest request = ControlRequest.parse(line);
      log.debug("control: {}", request);
      return commands.run(request);
    } catch (IOException e) {
      return Commands.failure(sentences.apply(e));
    } catch (RuntimeException | AssertionError e) {
      log.error("a control request failed", e);
      return Commands.failure(sentences.apply(e));
    } finally {
      synchronized (this) {
        inImages--;
      }
    }
  }

  private static void send(SocketChannel client, String line) throws IOException {
    OutputStream out = Channels.newOutputStream(client);
    out.write((line + "\n").getBytes(StandardCharsets.UTF_8));
  }

  private static void close(Channel channel) {
    try {
      channel.close();
    } catch (IOException e) {
      log.debug("closing a control connection: {}", e.getMessage());
    }
  }
}
