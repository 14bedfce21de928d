package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.client.NbdClient;
import java.io.DataInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestReporter;
import org.junit.jupiter.api.Timeout;

/**
 * Clients that come in crowds, leave in the middle of anything, or stay and do nothing, beside one
 * that works: it must not notice, and the server must give back what they took.
 */
@Timeout(600)
final class CrowdIT {
  private static final int CONNECTIONS = 10_000;
  private static final int IDLE = 1_000;
  private static final int DISK_BYTES = 64 << 20;
  private static final long IHAVEOPT = 0x49484156454f5054L;

  /** Where a client goes away. */
  private enum Leaving {
    AT_ONCE,
    AFTER_HALF_THE_GREETING,
    AFTER_ITS_FLAGS,
    IN_AN_OPTION_HEADER,
    IN_OPTION_DATA,
    AFTER_A_LIST,
    IN_TRANSMISSION,
    IN_A_REQUEST_HEADER,
    IN_THE_DATA_OF_A_WRITE,
    WITH_READS_UNDER_WAY,
    WITH_WRITES_UNDER_WAY
  }

  @Test
  void tenThousandThatLeaveInAnyStateCostNothing(TestReporter reporter) throws Exception {
    long seed = Long.getLong("qnbd.seed", System.nanoTime());
    reporter.publishEntry("repeat with", "-Dqnbd.seed=" + seed);
    try (Images images = Images.inMemory();
        QnbdProcess server =
            QnbdProcess.serve(images.qcow2("crowd.qcow2", "" + DISK_BYTES).toString());
        GoodClient good = new GoodClient(server)) {
      leave(server, new Random(seed), CONNECTIONS / 4);
      awaitConnections(server, 1);
      long heap = heapAfterCollection(server);
      long descriptors = descriptors(server);
      leave(server, new Random(seed + 1), CONNECTIONS - CONNECTIONS / 4);
      awaitConnections(server, 1);
      long heapAfter = heapAfterCollection(server);
      good.stop();
      reporter.publishEntry(
          "rounds of the good client, KiB of heap before and after",
          "%d, %d, %d".formatted(good.rounds(), heap >> 10, heapAfter >> 10));
      assertTrue(descriptors(server) <= descriptors, "descriptors: " + descriptors(server));
      assertTrue(heapAfter < heap + (8 << 20), "heap was " + heap + " and is " + heapAfter);
      server.stop();
    }
  }

  @Test
  void oneThousandThatDoNothingLeaveRoomForOneThatWorks(TestReporter reporter) throws Exception {
    try (Images images = Images.inMemory();
        QnbdProcess server =
            QnbdProcess.serve(images.qcow2("idle.qcow2", "" + DISK_BYTES).toString())) {
      List<Socket> crowd = new ArrayList<>();
      AtomicBoolean enough = new AtomicBoolean();
      try (GoodClient good = new GoodClient(server)) {
        Thread.sleep(1000); // To see how fast it is alone; nothing is asserted of it.
        int alone = good.rounds();
        for (int i = 0; i < IDLE; i++) {
          Socket socket = connect(server);
          crowd.add(socket);
          enterTransmission(socket);
        }
        crowd.add(neverReads(server));
        Socket slow = connect(server);
        crowd.add(slow);
        Thread drip = Thread.ofPlatform().daemon().start(() -> drip(slow, enough));
        int before = good.rounds();
        Thread.sleep(1000);
        reporter.publishEntry(
            "rounds in a second alone and beside the crowd",
            "%d, %d".formatted(alone, good.rounds() - before));
        good.atLeast(good.rounds() + 200);
        enough.set(true);
        drip.join();
        good.stop();
      } finally {
        for (Socket socket : crowd) {
          socket.close();
        }
      }
      awaitConnections(server, 0);
      server.stop();
    }
  }

  /** Writes and reads back what it wrote, over and over; any error fails the test. */
  private static final class GoodClient implements AutoCloseable {
    private static final int BYTES = 4096;

    private final NbdClient client;
    private final AtomicBoolean stopped = new AtomicBoolean();
    private final AtomicInteger rounds = new AtomicInteger();
    private final ExecutorService thread = Executors.newSingleThreadExecutor();
    private final Future<?> work;

    GoodClient(QnbdProcess server) throws IOException {
      client = NbdClient.connect(server.uri(), NbdClient.Style.GO_STRUCTURED);
      work =
          thread.submit(() -> {
            Random random = new Random(1);
            while (!stopped.get()) {
              byte[] data = new byte[BYTES];
              random.nextBytes(data);
              // The upper half is its own: those that leave write into the lower one.
              long offset = DISK_BYTES / 2 + (long) random.nextInt(DISK_BYTES / 2 / BYTES) * BYTES;
              var _ = client.write(offset, ByteBuffer.wrap(data), 0).get(60, TimeUnit.SECONDS);
              ByteBuffer back = ByteBuffer.allocate(BYTES);
              var _ = client.read(offset, back).get(60, TimeUnit.SECONDS);
              assertArrayEquals(data, back.array());
              rounds.incrementAndGet();
            }
            return null;
          });
    }

    int rounds() {
      return rounds.get();
    }

    /** Waits until it has done so many, for as long as it works. */
    void atLeast(int count) throws Exception {
      while (rounds() < count && !work.isDone()) {
        Thread.sleep(5);
      }
      if (work.isDone()) {
        work.get();
      }
    }

    void stop() throws Exception {
      stopped.set(true);
      work.get(120, TimeUnit.SECONDS);
    }

    @Override
    public void close() throws IOException {
      stopped.set(true);
      client.close();
      thread.shutdown();
    }
  }

  private static void leave(QnbdProcess server, Random random, int count) throws Exception {
    List<Future<?>> all = new ArrayList<>();
    try (ExecutorService threads = Executors.newFixedThreadPool(8)) {
      for (int i = 0; i < count; i++) {
        Leaving leaving = Leaving.values()[random.nextInt(Leaving.values().length)];
        boolean reset = random.nextBoolean();
        int cut = random.nextInt(1, 16);
        all.add(
            threads.submit(() -> {
              leave(server, leaving, reset, cut);
              return null;
            }));
      }
    }
    for (Future<?> each : all) {
      each.get();
    }
  }

  private static void leave(QnbdProcess server, Leaving leaving, boolean reset, int cut)
      throws IOException {
    try (Socket socket = connect(server)) {
      OutputStream out = socket.getOutputStream();
      InputStream in = socket.getInputStream();
      switch (leaving) {
        case AT_ONCE -> {}
        case AFTER_HALF_THE_GREETING -> in.readNBytes(9);
        case AFTER_ITS_FLAGS -> greet(socket);
        case IN_AN_OPTION_HEADER -> {
          greet(socket);
          out.write(option(3, new byte[0]), 0, cut);
        }
        case IN_OPTION_DATA -> {
          greet(socket);
          out.write(option(99, new byte[1000]), 0, 500 + cut);
        }
        case AFTER_A_LIST -> {
          greet(socket);
          out.write(option(3, new byte[0]));
        }
        case IN_TRANSMISSION -> enterTransmission(socket);
        case IN_A_REQUEST_HEADER -> {
          enterTransmission(socket);
          out.write(request(0, 1, 0, 4096), 0, cut);
        }
        case IN_THE_DATA_OF_A_WRITE -> {
          enterTransmission(socket);
          out.write(request(1, 1, 0, 1 << 20));
          out.write(new byte[100_000 + cut]);
        }
        case WITH_READS_UNDER_WAY -> {
          enterTransmission(socket);
          for (int i = 0; i < 16; i++) {
            out.write(request(0, i, i * 65536L, 65536));
          }
        }
        case WITH_WRITES_UNDER_WAY -> {
          enterTransmission(socket);
          for (int i = 0; i < 16; i++) {
            out.write(request(1, i, i * 4096L, 4096));
            out.write(new byte[4096]);
          }
        }
      }
      if (reset) {
        socket.setSoLinger(true, 0);
      }
    } catch (java.net.SocketException gone) {
      // The server may be quicker to end a connection that makes no sense than we are to send it.
      assertTrue(leaving.compareTo(Leaving.AFTER_ITS_FLAGS) > 0, gone.toString());
    }
  }

  /** Asks for a gigabyte and takes none of it. */
  private static Socket neverReads(QnbdProcess server) throws IOException {
    Socket socket = connect(server);
    enterTransmission(socket);
    for (int i = 0; i < 1024; i++) {
      socket.getOutputStream().write(request(0, i, 0, 1 << 20));
    }
    return socket;
  }

  /** Sends a request a byte at a time. */
  private static void drip(Socket socket, AtomicBoolean enough) {
    try {
      enterTransmission(socket);
      byte[] bytes = request(0, 1, 0, 512);
      for (int i = 0; i < bytes.length && !enough.get(); i++) {
        socket.getOutputStream().write(bytes[i]);
        socket.getOutputStream().flush();
        Thread.sleep(100);
      }
    } catch (IOException | InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  private static Socket connect(QnbdProcess server) throws IOException {
    Socket socket = new Socket();
    socket.setTcpNoDelay(true);
    socket.setSoTimeout(60_000);
    socket.connect(new InetSocketAddress(InetAddress.getLoopbackAddress(), server.port()), 60_000);
    return socket;
  }

  private static void greet(Socket socket) throws IOException {
    var _ = socket.getInputStream().readNBytes(18);
    socket.getOutputStream().write(ByteBuffer.allocate(4).putInt(3).array());
  }

  private static void enterTransmission(Socket socket) throws IOException {
    greet(socket);
    socket.getOutputStream().write(option(1, new byte[0])); // EXPORT_NAME, the default export
    new DataInputStream(socket.getInputStream()).readFully(new byte[10]);
  }

  private static byte[] option(int number, byte[] data) {
    return ByteBuffer.allocate(16 + data.length)
        .putLong(IHAVEOPT)
        .putInt(number)
        .putInt(data.length)
        .put(data)
        .array();
  }

  private static byte[] request(int command, long cookie, long offset, int bytes) {
    return ByteBuffer.allocate(28)
        .putInt(0x25609513)
        .putShort((short) 0)
        .putShort((short) command)
        .putLong(cookie)
        .putLong(offset)
        .putInt(bytes)
        .array();
  }

  private static void awaitConnections(QnbdProcess server, int count) throws Exception {
    long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
    while (connections(server) > count) {
      if (System.nanoTime() > deadline) {
        throw new AssertionError("connections left: " + connections(server));
      }
      Thread.sleep(50);
    }
  }

  /** Established connections to the server's port, as the kernel lists them (proc(5)). */
  private static long connections(QnbdProcess server) throws IOException {
    String local = ":%04X".formatted(server.port());
    try (Stream<String> lines = Files.lines(Path.of("/proc/net/tcp"))) {
      return lines
          .map(line -> line.trim().split("\\s+"))
          .filter(fields -> fields[1].endsWith(local) && fields[3].equals("01"))
          .count();
    }
  }

  private static long descriptors(QnbdProcess server) throws IOException {
    try (Stream<Path> open = Files.list(Path.of("/proc/" + server.pid() + "/fd"))) {
      return open.count();
    }
  }

  private static long heapAfterCollection(QnbdProcess server) throws IOException {
    Path java = Path.of("/proc/" + server.pid() + "/exe").toRealPath();
    String jcmd = java.resolveSibling("jcmd").toString();
    String pid = "" + server.pid();
    Shell.check(jcmd, pid, "GC.run");
    String info = Shell.check(jcmd, pid, "GC.heap_info");
    Matcher used = Pattern.compile("used (\\d+)K").matcher(info);
    if (!used.find()) {
      throw new AssertionError("no heap in: " + info);
    }
    return Long.parseLong(used.group(1)) << 10;
  }
}
