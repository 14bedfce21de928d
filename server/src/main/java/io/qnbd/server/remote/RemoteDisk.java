package io.qnbd.server.remote;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentSink;
import io.qnbd.image.ExtentState;
import io.qnbd.image.ImageStats;
import io.qnbd.image.ReadOnlyImageException;
import io.qnbd.image.Snapshots;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.ZeroRangeSink;
import io.qnbd.protocol.CommandFlags;
import io.qnbd.protocol.TransmissionFlags;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;

/**
 * The disk of an NBD export. Reads and writes of several threads are in flight together, over as
 * many connections as were asked for where the server promises that they see the same disk.
 *
 * <p>Every {@link IOException} names the operation, the range and the URI.
 */
public final class RemoteDisk implements DiskImage {
  private static final int PREFERRED_BYTES = 4096;

  /** A status is asked for so much at a time; the reply may still be shorter. */
  private static final int STATUS_BYTES = 1 << 30;

  private static final int ZEROES_BYTES_MAX = 1 << 30;

  private static final int STATE_HOLE = 1;
  private static final int STATE_ZERO = 2;

  private static final ByteBuffer ZEROES = ByteBuffer.allocateDirect(256 << 10).asReadOnlyBuffer();

  private final String name;
  private final List<RemoteConnection> connections;
  private final RemoteExport export;
  private final boolean readOnly;
  private final AtomicInteger next = new AtomicInteger();

  private RemoteDisk(String name, List<RemoteConnection> connections, boolean readOnly) {
    this.name = name;
    this.connections = connections;
    this.export = connections.getFirst().export();
    this.readOnly = readOnly;
  }

  /**
   * Connects.
   *
   * @param connectionsMax the most connections; one if the server does not offer more
   */
  public static RemoteDisk open(RemoteUri uri, boolean readOnly, int connectionsMax)
      throws IOException {
    List<RemoteConnection> connections = new ArrayList<>();
    boolean done = false;
    try {
      connections.add(RemoteConnection.open(uri));
      RemoteExport export = connections.getFirst().export();
      if (!readOnly && export.readOnly()) {
        throw new ReadOnlyImageException(uri.text() + ": the server has it read-only");
      }
      while (connections.size() < connectionsMax && export.has(TransmissionFlags.CAN_MULTI_CONN)) {
        RemoteConnection more = RemoteConnection.open(uri);
        connections.add(more);
        if (!more.export().equals(export)) {
          throw new IOException(uri.text() + ": changed between two connections");
        }
      }
      done = true;
      return new RemoteDisk(uri.text(), connections, readOnly);
    } finally {
      if (!done) {
        for (RemoteConnection each : connections) {
          each.close();
        }
      }
    }
  }

  @Override
  public long virtualBytes() {
    return export.bytes();
  }

  @Override
  public boolean readOnly() {
    return readOnly;
  }

  @Override
  public int preferredBytes() {
    return Math.max(PREFERRED_BYTES, export.blockBytesMin());
  }

  private void request(
      String operation, int command, int flags, Pending pending, @Nullable ByteBuffer payload)
      throws IOException {
    RemoteConnection connection =
        connections.get(Math.floorMod(next.getAndIncrement(), connections.size()));
    try {
      connection.request(command, flags, pending, payload);
    } catch (IOException e) {
      throw new IOException(
          "%s %d bytes at 0x%x of %s: %s"
              .formatted(operation, pending.bytes, pending.offset, name, e.getMessage()),
          e);
    }
  }

  @Override
  public void read(long offset, ByteBuffer target) throws IOException {
    Objects.checkFromIndexSize(offset, target.remaining(), virtualBytes());
    int mask = export.blockBytesMin() - 1;
    if (((offset | target.remaining()) & mask) != 0) {
      readUnaligned(offset, target, mask);
      return;
    }
    int most = export.payloadBytesMax() & ~mask;
    for (long at = offset; target.hasRemaining(); ) {
      int bytes = Math.min(target.remaining(), most);
      Pending pending = new Pending(at, bytes, target.slice(target.position(), bytes), null);
      request("reading", RemoteConnection.CMD_READ, 0, pending, null);
      target.position(target.position() + bytes);
      at += bytes;
    }
  }

  /** By way of a buffer with whole blocks; the export's size is a multiple of them. */
  private void readUnaligned(long offset, ByteBuffer target, int mask) throws IOException {
    long from = offset & ~mask;
    long to = Math.min(virtualBytes(), (offset + target.remaining() + mask) & ~mask);
    if (((to - from) & mask) != 0) {
      throw new IOException(
          "%s: its size, %d bytes, is no multiple of its blocks of %d"
              .formatted(name, virtualBytes(), mask + 1));
    }
    ByteBuffer whole = ByteBuffer.allocateDirect((int) (to - from));
    read(from, whole);
    target.put(whole.slice((int) (offset - from), target.remaining()));
  }

  @Override
  public void read(long offset, ByteBuffer target, ZeroRangeSink zeroes) throws IOException {
    read(offset, target);
  }

  /** Without block status, all of it may be data. */
  @Override
  public void extents(long offset, long bytes, ExtentSink sink) throws IOException {
    Objects.checkFromIndexSize(offset, bytes, virtualBytes());
    if (export.context() < 0) {
      if (bytes > 0) {
        sink.extent(bytes, state(0));
      }
      return;
    }
    int mask = export.blockBytesMin() - 1;
    long end = offset + bytes;
    for (long at = offset; at < end; ) {
      long from = at & ~mask;
      long to = Math.min(virtualBytes(), (Math.min(end, from + STATUS_BYTES) + mask) & ~mask);
      for (Status each : status(from, (int) (to - from))) {
        long count = Math.min(from + each.bytes(), end) - at;
        if (count > 0 && !sink.extent(count, state(each.flags()))) {
          return;
        }
        at = Math.max(at, Math.min(from + each.bytes(), end));
        from += each.bytes();
      }
    }
  }

  private record Status(long bytes, int flags) {}

  private List<Status> status(long offset, int bytes) throws IOException {
    List<Status> told = new ArrayList<>();
    Pending.StatusSink sink =
        (count, flags) -> {
          if (count == 0 || count > Long.MAX_VALUE - offset - (1L << 40)) {
            throw new IOException("sent a block status of " + count + " bytes");
          }
          told.add(new Status(count, flags));
        };
    request(
        "asking about",
        RemoteConnection.CMD_BLOCK_STATUS,
        0,
        new Pending(offset, bytes, null, sink),
        null);
    if (told.isEmpty()) {
      throw new IOException(
          "asking about %d bytes at 0x%x of %s: the server said nothing"
              .formatted(bytes, offset, name));
    }
    return told;
  }

  private static ExtentState state(int flags) {
    return new ExtentState((flags & STATE_HOLE) != 0, (flags & STATE_ZERO) != 0, 1);
  }

  @Override
  public void write(long offset, ByteBuffer source) throws IOException {
    requireWritable("writing", offset, source.remaining());
    int most = export.payloadBytesMax() & -export.blockBytesMin();
    for (long at = offset; source.hasRemaining(); ) {
      int bytes = Math.min(source.remaining(), most);
      request(
          "writing",
          RemoteConnection.CMD_WRITE,
          0,
          new Pending(at, bytes, null, null),
          source.slice(source.position(), bytes));
      source.position(source.position() + bytes);
      at += bytes;
    }
  }

  @Override
  public void writeZeroes(long offset, long bytes, ZeroMode mode) throws IOException {
    requireWritable("zeroing", offset, bytes);
    boolean command = export.has(TransmissionFlags.SEND_WRITE_ZEROES);
    int flags = mode == ZeroMode.KEEP_ALLOCATED ? CommandFlags.NO_HOLE : 0;
    long end = offset + bytes;
    for (long at = offset; at < end; ) {
      int piece = (int) Math.min(end - at, command ? ZEROES_BYTES_MAX : ZEROES.capacity());
      if (command) {
        request(
            "zeroing",
            RemoteConnection.CMD_WRITE_ZEROES,
            flags,
            new Pending(at, piece, null, null),
            null);
      } else {
        write(at, ZEROES.slice(0, piece));
      }
      at += piece;
    }
  }

  private void requireWritable(String operation, long offset, long bytes) throws IOException {
    if (readOnly) {
      throw new ReadOnlyImageException(name + " was opened for reading only");
    }
    Objects.checkFromIndexSize(offset, bytes, virtualBytes());
    if (((offset | bytes) & (export.blockBytesMin() - 1)) != 0) {
      throw new IOException(
          "%s %d bytes at 0x%x of %s: the server takes whole blocks of %d bytes only"
              .formatted(operation, bytes, offset, name, export.blockBytesMin()));
    }
  }

  @Override
  public boolean tryFastZeroes(long offset, long bytes, ZeroMode mode) {
    return false;
  }

  @Override
  public void trim(long offset, long bytes) {
    // a hint
  }

  @Override
  public void prefetch(long offset, long bytes) {
    // a hint
  }

  @Override
  public CompletionStage<@Nullable Void> commit() {
    CompletableFuture<@Nullable Void> stage = new CompletableFuture<>();
    Thread.ofVirtual()
        .start(() -> {
          try {
            flush();
            stage.complete(null);
          } catch (IOException | RuntimeException e) {
            stage.completeExceptionally(e);
          }
        });
    return stage;
  }

  /** One flush covers what went over all connections: several are made only where it does. */
  @Override
  public void flush() throws IOException {
    if (!readOnly && export.has(TransmissionFlags.SEND_FLUSH)) {
      Pending pending = new Pending(0, 0, null, null);
      request("flushing", RemoteConnection.CMD_FLUSH, 0, pending, null);
    }
  }

  @Override
  public ImageStats stats() {
    return new ImageStats(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  }

  @Override
  public Snapshots snapshots() throws UnsupportedImageException {
    throw new UnsupportedImageException(name + ": an NBD export has no snapshots to see");
  }

  @Override
  public void resize(long bytes) throws IOException {
    throw new UnsupportedImageException(name + ": the size of an NBD export is its server's");
  }

  @Override
  public void close() throws IOException {
    for (RemoteConnection each : connections) {
      each.close();
    }
  }
}
