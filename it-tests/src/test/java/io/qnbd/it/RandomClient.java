package io.qnbd.it;

import io.qnbd.it.client.NbdClient;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import java.util.Iterator;
import java.util.Random;
import java.util.concurrent.CompletableFuture;

/**
 * One connection of the random traffic: it owns the bytes {@code [from, to)} of the disk, which it
 * compares with a model, and takes part in the shared area.
 *
 * <p>Up to {@link #DEPTH} requests are in flight; two that overlap are never, unless both read.
 *
 * <p>Owner: the thread that runs it. The slice of the model is its own.
 */
final class RandomClient {
  private static final int DEPTH = 8;
  private static final int REQUEST_MAX = 8 << 20;
  private static final int PAGE_BYTES = 4096;

  private final NbdClient client;
  private final Random random;
  private final byte[] model;
  private final int from;
  private final int to;
  private final SharedArea shared;
  private final byte[] noise;
  private final Deque<InFlight> inFlight = new ArrayDeque<>();

  /** {@code noise} holds {@link #REQUEST_MAX} random bytes and more. */
  RandomClient(
      NbdClient client,
      long seed,
      byte[] model,
      int from,
      int to,
      SharedArea shared,
      byte[] noise) {
    this.client = client;
    this.random = new Random(seed);
    this.model = model;
    this.from = from;
    this.to = to;
    this.shared = shared;
    this.noise = noise;
  }

  /** A request without its reply, and what to do then. */
  private record InFlight(
      long from, long to, boolean changes, CompletableFuture<Void> reply, Check check) {}

  private interface Check {
    void run() throws IOException;
  }

  /** Sends this many requests and waits for all of them. */
  void run(int requests) throws IOException {
    for (int request = 0; request < requests; request++) {
      int kind = random.nextInt(100);
      if (kind < 38) {
        read();
      } else if (kind < 74) {
        write();
      } else if (kind < 82) {
        zero();
      } else if (kind < 88) {
        trim();
      } else if (kind < 89) {
        add(0, 0, false, client.flush(), () -> {});
      } else if (kind < 94) {
        readShared();
      } else {
        writeShared();
      }
    }
    while (!inFlight.isEmpty()) {
      finish(inFlight.removeFirst());
    }
  }

  private void read() throws IOException {
    int bytes = length();
    int at = offset(bytes);
    settle(at, at + bytes, false);
    byte[] found = new byte[bytes];
    add(
        at,
        at + bytes,
        false,
        client.read(at, ByteBuffer.wrap(found)),
        () -> compare(at, found, bytes));
  }

  private void compare(int at, byte[] found, int bytes) {
    int differs = Arrays.mismatch(found, 0, bytes, model, at, at + bytes);
    if (differs >= 0) {
      throw new AssertionError(
          "byte %#x, read by %d bytes at %#x, is %#x, expected %#x"
              .formatted(at + differs, bytes, at, found[differs], model[at + differs]));
    }
  }

  private void write() throws IOException {
    int bytes = length();
    int at = offset(bytes);
    settle(at, at + bytes, true);
    int source = random.nextInt(noise.length - bytes + 1);
    System.arraycopy(noise, source, model, at, bytes);
    ByteBuffer payload = ByteBuffer.wrap(noise, source, bytes);
    add(at, at + bytes, true, client.write(at, payload, sometimesFua()), () -> {});
  }

  private void zero() throws IOException {
    int bytes = length();
    int at = offset(bytes);
    settle(at, at + bytes, true);
    Arrays.fill(model, at, at + bytes, (byte) 0);
    int flags = sometimesFua() | (random.nextBoolean() ? NbdClient.FLAG_NO_HOLE : 0);
    add(at, at + bytes, true, client.writeZeroes(at, bytes, flags), () -> {});
  }

  /** What was trimmed reads as before or as zeroes, and stays as it was once read. */
  private void trim() throws IOException {
    int bytes = length();
    int at = offset(bytes);
    settle(at, at + bytes, true);
    add(
        at,
        at + bytes,
        true,
        client.trim(at, bytes, sometimesFua()),
        () -> {
          byte[] found = new byte[bytes];
          NbdClient.await(client.read(at, ByteBuffer.wrap(found)));
          for (int index = 0; index < bytes; index++) {
            if (found[index] != 0) {
              compareByte(at + index, found[index]);
            }
          }
          System.arraycopy(found, 0, model, at, bytes);
        });
  }

  private void compareByte(int at, byte found) {
    if (found != model[at]) {
      throw new AssertionError(
          "byte %#x is %#x after a trim, expected 0 or %#x".formatted(at, found, model[at]));
    }
  }

  private void readShared() throws IOException {
    int count = 1 + random.nextInt(64);
    int first = random.nextInt(shared.sectors() - count + 1);
    long at = shared.from() + (long) first * SharedArea.SECTOR_BYTES;
    long[] floors = shared.floors(first, count);
    ByteBuffer found = ByteBuffer.allocate(count * SharedArea.SECTOR_BYTES);
    int end = found.limit();
    add(
        at,
        at + end,
        false,
        client.read(at, found),
        () -> shared.verify(found.clear(), first, floors));
  }

  private void writeShared() throws IOException {
    int count = 1 + random.nextInt(64);
    int first = random.nextInt(shared.sectors() - count + 1);
    long at = shared.from() + (long) first * SharedArea.SECTOR_BYTES;
    int number = shared.begin();
    ByteBuffer payload = shared.stamped(number, first, count);
    long end = at + payload.remaining();
    add(
        at,
        end,
        true,
        client.write(at, payload, sometimesFua()),
        () -> shared.acknowledge(number, first, count));
  }

  private void add(long at, long end, boolean changes, CompletableFuture<Void> reply, Check check)
      throws IOException {
    inFlight.addLast(new InFlight(at, end, changes, reply, check));
    if (inFlight.size() > DEPTH) {
      finish(inFlight.removeFirst());
    }
  }

  /** Waits for what overlaps the range, unless both only read. */
  private void settle(long at, long end, boolean changes) throws IOException {
    Iterator<InFlight> all = inFlight.iterator();
    while (all.hasNext()) {
      InFlight other = all.next();
      if (at < other.to && other.from < end && (changes || other.changes)) {
        all.remove();
        finish(other);
      }
    }
  }

  private static void finish(InFlight request) throws IOException {
    NbdClient.await(request.reply);
    request.check.run();
  }

  private int sometimesFua() {
    return random.nextInt(64) == 0 ? NbdClient.FLAG_FUA : 0;
  }

  /** Mostly small, because each kind of request has its corner cases at cluster boundaries. */
  private int length() {
    int kind = random.nextInt(1000);
    int most = kind < 600 ? 4096 : kind < 940 ? 32 << 10 : kind < 998 ? 256 << 10 : REQUEST_MAX;
    int bytes = 1 + random.nextInt(Math.min(most, to - from));
    return random.nextBoolean() && bytes > PAGE_BYTES ? bytes & -PAGE_BYTES : bytes;
  }

  private int offset(int bytes) {
    int at = from + random.nextInt(to - from - bytes + 1);
    int aligned = at & -PAGE_BYTES;
    return random.nextBoolean() && aligned >= from ? aligned : at;
  }
}
