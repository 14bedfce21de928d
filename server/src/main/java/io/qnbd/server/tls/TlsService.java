package io.qnbd.server.tls;

import io.netty.channel.Channel;
import io.netty.channel.ChannelHandler;
import io.netty.handler.ssl.SslHandler;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Makes connections secure with credentials from files, TLS 1.2 and 1.3 only.
 *
 * <p>The files are looked at every second while the service is open. When they have changed, and
 * then stayed the same for a second, connections that begin use the new ones; those that are there
 * go on as they are. New files that make no sense are told once in the log, and the old ones stay
 * in use. The looking happens on a thread of its own because an event loop must not wait for a file
 * system, and not when a client comes because the first client after a renewal would then meet the
 * certificate that has expired.
 *
 * <p>Thread-safe.
 */
public final class TlsService implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(TlsService.class);
  private static final long LOOK_MILLIS = 1000;

  private final TlsFiles files;
  private final CountDownLatch closed = new CountDownLatch(1);
  private volatile Acceptor acceptor;

  /** What the files were when they were last read, whether or not they made sense. */
  private List<FileStamp> read;

  /** What the files were at the last look. */
  private List<FileStamp> seen;

  private TlsService(TlsFiles files) throws IOException {
    this.files = files;
    read = FileStamp.of(files.all());
    seen = read;
    acceptor = load(files);
  }

  /**
   * Reads the files and begins to watch them.
   *
   * @throws IOException if one cannot be read or makes no sense; its message is one sentence that
   *     names the file, or it is a {@link java.nio.file.FileSystemException}
   */
  public static TlsService open(TlsFiles files) throws IOException {
    TlsService service = new TlsService(files);
    Thread.ofVirtual().name("tls-files").start(service::watch);
    return service;
  }

  /**
   * A handler for a connection whose peer speaks TLS from its next byte on; it belongs first into
   * the pipeline. Fires {@link io.netty.handler.ssl.SslHandshakeCompletionEvent}; after a failure
   * the connection is closed. May be called on an event loop.
   */
  public ChannelHandler newHandler(Channel channel) {
    return acceptor.newHandler(channel.alloc());
  }

  /**
   * Who the client is, once the handshake of {@code handler} has succeeded; null before, or if it
   * failed. To be called on the channel's event loop.
   *
   * @param handler from {@link #newHandler}
   */
  public @Nullable TlsIdentity identityOf(ChannelHandler handler) {
    return switch (handler) {
      case SslHandler ssl -> X509Acceptor.identityOf(ssl);
      case PskHandler psk -> psk.identity();
      default -> throw new IllegalArgumentException("not a TLS handler: " + handler);
    };
  }

  /** Stops watching the files; connections are not touched. */
  @Override
  public void close() {
    closed.countDown();
  }

  private static Acceptor load(TlsFiles files) throws IOException {
    return switch (files) {
      case TlsFiles.X509 x509 -> X509Acceptor.load(x509);
      case TlsFiles.Psk psk -> PskAcceptor.load(psk);
    };
  }

  private void watch() {
    try {
      while (!closed.await(LOOK_MILLIS, TimeUnit.MILLISECONDS)) {
        look();
      }
    } catch (InterruptedException e) {
      throw new AssertionError("nobody interrupts this thread", e);
    }
  }

  /** For tests also; of one thread at a time. */
  synchronized void look() {
    List<FileStamp> now = FileStamp.of(files.all());
    boolean settled = now.equals(seen); // certificate and key are rarely replaced in one moment
    seen = now;
    if (!settled || now.equals(read)) {
      return;
    }
    read = now;
    String names = files.all().stream().map(Path::toString).collect(Collectors.joining(", "));
    try {
      acceptor = load(files);
      log.info("read again for TLS, because they changed: {}", names);
    } catch (IOException e) {
      log.warn("files for TLS changed, but the old ones stay in use: {}", Sentences.of(e));
    }
  }
}
