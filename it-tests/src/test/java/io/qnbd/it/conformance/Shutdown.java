package io.qnbd.it.conformance;

import io.qnbd.it.Images;
import io.qnbd.it.QnbdProcess;
import io.qnbd.it.conformance.Endpoint.Tls;
import java.io.EOFException;
import java.io.IOException;
import java.net.SocketException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.BitSet;
import java.util.EnumMap;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * A server that gets SIGTERM while a client in each mode writes as fast as it can and another is in
 * the handshake. It runs once; the cases look at what was seen.
 *
 * <p>Thread-safe once {@link #run} has returned.
 */
final class Shutdown {
  private static final int PIECE_BYTES = 32_768;
  private static final int PIECES = 256;
  private static final int BATCH = 24;

  private final Map<Mode, Writer> writers;
  private final Haggler haggler;
  private final byte[] image;

  private Shutdown(Map<Mode, Writer> writers, Haggler haggler, byte[] image) {
    this.writers = writers;
    this.haggler = haggler;
    this.image = image;
  }

  static Shutdown run(Images images) throws IOException, InterruptedException {
    Path disk = images.qcow2("shutdown.qcow2", "32M");
    Map<Mode, Writer> writers = new EnumMap<>(Mode.class);
    Haggler haggler;
    try (QnbdProcess qnbd = QnbdProcess.serve("disk=" + disk)) {
      Endpoint server = new Endpoint(qnbd.port(), Tls.OFF);
      haggler = new Haggler(Haggling.open(server));
      for (Mode mode : Mode.values()) {
        Writer writer = new Writer(mode, server, writers.size());
        writer.thread.start();
        writers.put(mode, writer);
      }
      for (Writer writer : writers.values()) {
        Check.that(writer.busy.await(60, TimeUnit.SECONDS), "no writes in %s", writer.mode);
      }
      haggler.thread.start();
      qnbd.stop();
      for (Writer writer : writers.values()) {
        writer.thread.join();
      }
      haggler.thread.join();
    }
    return new Shutdown(writers, haggler, images.contents(disk));
  }

  /** Fails unless every reply in this mode was legal, and success or ESHUTDOWN. */
  void mustHaveAnswered(Mode mode) {
    Writer writer = writers.get(mode);
    Throwable failure = writer == null ? new AssertionError("nobody wrote") : writer.failure;
    if (failure != null) {
      throw new AssertionError(failure.getMessage(), failure);
    }
  }

  /** Fails unless the client in the handshake was told to go, or cut off. */
  void mustHaveRefused() {
    Throwable failure = haggler.failure;
    if (failure != null) {
      throw new AssertionError(failure.getMessage(), failure);
    }
  }

  /** Fails unless everything that was acknowledged can be found in the image. */
  void mustHaveKept() {
    for (Writer writer : writers.values()) {
      for (int piece : writer.acknowledged.stream().toArray()) {
        int at = (int) writer.place(piece);
        Bench.mustEqual(writer.data(piece), Arrays.copyOfRange(image, at, at + PIECE_BYTES));
      }
    }
  }

  /** Writes the same pieces over and over until it is told to stop or cut off. */
  private static final class Writer {
    final Mode mode;
    final Endpoint server;
    final int index;
    final Thread thread = Thread.ofVirtual().unstarted(this::run);
    final CountDownLatch busy = new CountDownLatch(1);
    final BitSet acknowledged = new BitSet();
    volatile @Nullable Throwable failure;

    Writer(Mode mode, Endpoint server, int index) {
      this.index = index;
      this.mode = mode;
      this.server = server;
    }

    long place(int piece) {
      return ((long) index * PIECES + piece) * PIECE_BYTES;
    }

    byte[] data(int piece) {
      return Bench.noise(PIECE_BYTES, place(piece));
    }

    private void run() {
      try (Session session = server.open(mode, "disk")) {
        boolean goingDown = false;
        for (int first = 0; !goingDown; first = (first + BATCH) % PIECES) {
          goingDown = writeBatch(session, first);
          busy.countDown();
        }
        // "If the client receives ESHUTDOWN it MUST initiate a soft disconnect."
        session.peer().sendToWhomMayBeGone(Ask.of(Nbd.DISC, 0, 0).encode(mode));
        var _ = session.peer().countToEnd();
      } catch (EOFException | SocketException e) {
        busy.countDown(); // cut off, which a server that goes down may do
      } catch (Throwable e) {
        failure = e;
        busy.countDown();
      }
    }

    private boolean writeBatch(Session session, int first) throws IOException {
      Ask[] asks = new Ask[BATCH];
      Arrays.setAll(
          asks,
          index -> {
            int piece = (first + index) % PIECES;
            return Ask.write(place(piece), data(piece));
          });
      session.send(asks);
      boolean goingDown = false;
      for (int count = 0; count < BATCH; count++) {
        Reply reply = session.nextReply().mustAnswer(0, Nbd.ESHUTDOWN);
        if (reply.error == 0) {
          long offset = reply.ask.offset() - place(0);
          acknowledged.set((int) (offset / PIECE_BYTES));
        } else {
          goingDown = true;
        }
      }
      return goingDown;
    }
  }

  /** Asks for the list of exports until it is told to stop or cut off. */
  private static final class Haggler {
    final Haggling haggling;
    final Thread thread = Thread.ofVirtual().unstarted(this::run);
    volatile @Nullable Throwable failure;

    Haggler(Haggling haggling) {
      this.haggling = haggling;
    }

    private void run() {
      try (haggling) {
        Answer answer = haggling.ask(Nbd.OPT_LIST);
        while (answer.acknowledged()) {
          answer = haggling.ask(Nbd.OPT_LIST); // the signal is still on its way
        }
        var _ = answer.mustEndWith(Nbd.ERR_SHUTDOWN);
        haggling.leave();
      } catch (EOFException | SocketException e) {
        return; // cut off, which is allowed
      } catch (Throwable e) {
        failure = e;
      }
    }
  }
}
