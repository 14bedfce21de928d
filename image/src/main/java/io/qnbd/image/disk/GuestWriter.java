package io.qnbd.image.disk;

import io.qnbd.image.format.Geometry;
import io.qnbd.image.mapping.Mapping;
import io.qnbd.image.mapping.SubclusterMap;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;
import java.nio.ByteBuffer;
import org.jspecify.annotations.Nullable;

/**
 * Writes guest bytes: in place where the cluster is the guest's alone, else into new clusters, with
 * what surrounds the bytes copied from where it was.
 *
 * <p>Order within a write: the data reaches the file first, then the entry is set in memory. So a
 * commit, which may take the entries at any time, never publishes a cluster that is not written.
 *
 * <p>Thread-safe; the caller holds the range lock as each method says.
 */
final class GuestWriter {
  private final Layers layers;
  private final GuestReader reader;

  /** Null for an image whose clusters have no subclusters. */
  private final @Nullable SubclusterWriter bySubcluster;

  GuestWriter(Layers layers, GuestReader reader) {
    this.layers = layers;
    this.reader = reader;
    SubclusterMap subclusters = layers.map().subclusters();
    this.bySubcluster =
        subclusters == null ? null : new SubclusterWriter(layers, subclusters, this);
  }

  /**
   * Writes as much of {@code source} as can be written in place. The caller holds the range shared.
   *
   * @return whether that was all
   */
  boolean writeInPlace(long offset, ByteBuffer source) throws IOException {
    for (long at = offset; source.hasRemaining(); ) {
      Mapping mapping = reader.lookupToWrite(at, source.remaining());
      if (!(mapping instanceof Mapping.Data data) || !data.sole()) {
        return false;
      }
      writePart(data.hostOffset(), source, (int) data.bytes());
      at += data.bytes();
    }
    return true;
  }

  /** Writes all of {@code source}. The caller holds the range of all its clusters exclusively. */
  void write(long offset, ByteBuffer source) throws IOException {
    for (long at = offset; source.hasRemaining(); ) {
      int before = source.remaining();
      switch (reader.lookupToWrite(at, source.remaining())) {
        case Mapping.Data data when data.sole() ->
            writePart(data.hostOffset(), source, (int) data.bytes());
        case Mapping _ when bySubcluster != null -> bySubcluster.writeSome(at, source);
        case Mapping.Zeros zeros when zeros.allocated() && zeros.sole() ->
            writeOverZeros(at, zeros, source);
        case Mapping.Data _, Mapping.Zeros _, Mapping.Compressed _, Mapping.Unallocated _ ->
            writeNew(at, source);
      }
      at += before - source.remaining();
    }
  }

  private void writePart(long hostOffset, ByteBuffer source, int bytes) throws IOException {
    int end = source.limit();
    source.limit(source.position() + bytes);
    try {
      layers.data().write(hostOffset, source);
    } finally {
      source.limit(end);
    }
  }

  /** Into clusters that are allocated but marked as zeroes: their old bytes must go. */
  private void writeOverZeros(long offset, Mapping.Zeros zeros, ByteBuffer source)
      throws IOException {
    Geometry geometry = layers.geometry();
    int inCluster = geometry.inCluster(offset);
    int count = (int) geometry.clustersFor(inCluster + zeros.bytes());
    HostRun run = new HostRun(geometry.clusterOf(zeros.hostOffset()), count);
    Surroundings zeroes = new Surroundings(false, true, true);
    writeRun(offset, run, zeroes, source);
    layers.metadata().lock();
    try {
      layers.map().prepare(geometry.clusterOf(offset));
      layers.map().clearZeroFlag(geometry.clusterOf(offset), count);
    } finally {
      layers.metadata().unlock();
    }
  }

  /**
   * What a new run of clusters holds around the guest's bytes.
   *
   * @param fresh the run reads as zeroes; durably, or at the latest when the next commit has synced
   * @param headZero the old bytes before the guest's read as zeroes
   * @param tailZero the old bytes behind the guest's read as zeroes
   */
  record Surroundings(boolean fresh, boolean headZero, boolean tailZero) {}

  /**
   * Writes as much of {@code source} as fits into one new run. Nothing, if the cluster has become
   * the guest's own meanwhile: the caller looks it up again.
   */
  private void writeNew(long offset, ByteBuffer source) throws IOException {
    Geometry geometry = layers.geometry();
    long cluster = geometry.clusterOf(offset);
    long last = geometry.clusterOf(offset + source.remaining() - 1);
    HostRun run;
    Surroundings around;
    layers.metadata().lock();
    try {
      layers.map().prepare(cluster);
      int wanted = layers.map().countToAllocate(cluster, last - cluster + 1);
      if (wanted == 0) {
        return; // a snapshot that shared the cluster went since it was looked up
      }
      run = layers.clusters().allocate(cluster, wanted);
      around =
          new Surroundings(
              layers.clusters().fresh(run),
              layers.map().readsAsZeroes(cluster),
              layers.map().readsAsZeroes(cluster + run.count() - 1));
    } finally {
      layers.metadata().unlock();
    }
    boolean done = false;
    try {
      if (layers.clusters().fixed()) {
        around = new Surroundings(isHole(run), around.headZero(), around.tailZero());
      }
      writeRun(offset, run, around, source);
      assign(cluster, run);
      done = true;
    } finally {
      if (!done) {
        giveBack(run);
      }
    }
  }

  private void assign(long cluster, HostRun run) throws IOException {
    layers.metadata().lock();
    try {
      layers.map().assign(cluster, run);
    } finally {
      layers.metadata().unlock();
    }
  }

  private boolean isHole(HostRun run) throws IOException {
    Geometry geometry = layers.geometry();
    return layers.data().isHole(geometry.offsetOf(run.first()), geometry.offsetOf(run.count()));
  }

  private void giveBack(HostRun run) {
    layers.metadata().lock();
    try {
      layers.clusters().giveBack(run);
    } finally {
      layers.metadata().unlock();
    }
  }

  /**
   * Writes as much of {@code source} as fits into {@code run}, which comes to stand for the guest
   * clusters from that of {@code offset} on, and around it what must surround it. Zeroes are left
   * out where the run reads as zeroes already.
   */
  private void writeRun(long offset, HostRun run, Surroundings around, ByteBuffer source)
      throws IOException {
    Geometry geometry = layers.geometry();
    int head = geometry.inCluster(offset);
    long runBytes = geometry.offsetOf(run.count());
    int data = (int) Math.min(source.remaining(), runBytes - head);
    long host = geometry.offsetOf(run.first());
    int tail = (int) endToFill(host, head + data, runBytes) - head - data;
    writeAround(offset, host + head, head, data, tail, around, source);
  }

  /**
   * Writes {@code data} bytes of {@code source} to {@code host}, and the old bytes before and
   * behind them to where they come to stand beside them.
   *
   * @param offset where the guest wants its bytes
   * @param head bytes, of at most one cluster, that are to surround it before
   * @param tail and behind
   */
  void writeAround(
      long offset, long host, int head, int data, int tail, Surroundings around, ByteBuffer source)
      throws IOException {
    Padding before = padding(offset - head, head, around.fresh(), around.headZero());
    Padding behind = padding(offset + data, tail, around.fresh(), around.tailZero());
    if (before == Padding.NONE && behind == Padding.NONE) {
      writePart(host, source, data);
      return;
    }
    long runBytes = (long) head + data + tail;
    if (runBytes <= layers.scratch().assembledBytes()) {
      ByteBuffer whole = layers.scratch().assembled();
      whole.position(before == Padding.NONE ? head : 0);
      pad(before, offset - head, head, whole);
      whole.put(source.slice(source.position(), data));
      pad(behind, offset + data, tail, whole);
      int from = needless(before, around, whole, 0, head) ? head : 0;
      int to =
          needless(behind, around, whole, head + data, (int) runBytes)
              ? head + data
              : (int) runBytes;
      layers.data().write(host - head + from, whole.clear().position(from).limit(to));
      source.position(source.position() + data);
      return;
    }
    writePadding(before, offset - head, head, host - head);
    writePart(host, source, data);
    writePadding(behind, offset + data, tail, host + data);
  }

  /** Copies old bytes, of at most one cluster, to {@code host}; {@code fresh} if it is zeroes. */
  void copy(long offset, int bytes, long host, boolean fresh) throws IOException {
    if (padding(offset, bytes, fresh, false) == Padding.NONE) {
      return;
    }
    ByteBuffer old = layers.scratch().assembled();
    pad(Padding.OLD_BYTES, offset, bytes, old);
    if (!fresh || !Zeroes.all(old, 0, bytes)) {
      layers.data().write(host, old.flip());
    }
  }

  /**
   * Where the bytes of a run at {@code host} end that must be what they stand for. Behind the end
   * of a raw data file zeroes are read, and none are written, as it is as long as its disk.
   */
  private long endToFill(long host, long min, long runBytes) throws IOException {
    DataFile dataFile = layers.dataFile();
    return dataFile != null && dataFile.raw()
        ? Math.clamp(dataFile.storage().length() - host, min, runBytes)
        : runBytes;
  }

  /**
   * Whether the padding in {@code [from, to)} of the buffer is what the run reads as without it.
   */
  private static boolean needless(
      Padding padding, Surroundings around, ByteBuffer whole, int from, int to) {
    return padding == Padding.NONE
        || (padding == Padding.OLD_BYTES && around.fresh() && Zeroes.all(whole, from, to));
  }

  private enum Padding {
    NONE,
    ZEROES,
    OLD_BYTES
  }

  private Padding padding(long offset, int bytes, boolean fresh, boolean oldIsZero)
      throws IOException {
    if (bytes == 0 || (fresh && (oldIsZero || oldIsHole(offset, bytes)))) {
      return Padding.NONE;
    }
    return oldIsZero ? Padding.ZEROES : Padding.OLD_BYTES;
  }

  /** Whether the old bytes, within one cluster, are a hole of the image file: nothing to copy. */
  private boolean oldIsHole(long offset, int bytes) throws IOException {
    return reader.lookup(offset, bytes) instanceof Mapping.Data data
        && data.bytes() == bytes
        && layers.data().isHole(data.hostOffset(), bytes);
  }

  private void pad(Padding padding, long offset, int bytes, ByteBuffer whole) throws IOException {
    switch (padding) {
      case NONE -> {}
      case ZEROES -> Zeroes.fill(whole, bytes);
      case OLD_BYTES -> {
        int end = whole.limit();
        whole.limit(whole.position() + bytes);
        reader.read(offset, whole);
        whole.limit(end);
      }
    }
  }

  private void writePadding(Padding padding, long offset, int bytes, long host) throws IOException {
    if (padding != Padding.NONE) {
      ByteBuffer pad = layers.scratch().assembled();
      pad(padding, offset, bytes, pad);
      layers.data().write(host, pad.flip());
    }
  }
}
