package io.qnbd.image.disk;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.Bitmaps;
import io.qnbd.image.Compaction;
import io.qnbd.image.CorruptImageException;
import io.qnbd.image.DirtySink;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentSink;
import io.qnbd.image.ImageReport;
import io.qnbd.image.ImageStats;
import io.qnbd.image.MapSink;
import io.qnbd.image.NoSpaceException;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Preallocation;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.ReadOnlyImageException;
import io.qnbd.image.Snapshots;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.ZeroRangeSink;
import io.qnbd.image.bitmap.BitmapOperations;
import io.qnbd.image.bitmap.DirtyBitmaps;
import io.qnbd.image.check.Inspector;
import io.qnbd.image.commit.GroupCommit;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.io.RangeLock;
import io.qnbd.image.io.Storage;
import io.qnbd.image.mapping.ClusterMap.Dropped;
import io.qnbd.image.mapping.Mapping;
import io.qnbd.image.mapping.SubclusterMap;
import io.qnbd.image.metadata.Guard;
import io.qnbd.image.metadata.HeaderRewrite;
import io.qnbd.image.metadata.ImageFile;
import io.qnbd.image.refcount.AllocatorCounters;
import io.qnbd.image.snapshot.SnapshotOperations;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A qcow2 image that is open.
 *
 * <p>Locks, in the order in which they are taken:
 *
 * <ol>
 *   <li>{@code clusters}, by guest cluster range. Reads and writes in place hold their range
 *       shared; writes that allocate, trims and zeroes exclusively. So a cluster that a request
 *       looked up is not freed while the request is in flight: its removal waits for the range, and
 *       its reuse for the commit of the removal.
 *   <li>{@link Layers#metadata}.
 * </ol>
 *
 * No lock is held while waiting for a commit.
 */
public final class Qcow2Image implements DiskImage {
  /** Trims and zeroes hold at most this many clusters' range at a time. */
  private static final long DROP_CLUSTERS_MAX = 1 << 16;

  /** An image without a request for so long gives back what it has reserved. */
  private static final long IDLE_NANOS = 5_000_000_000L;

  private static final Logger LOG = LoggerFactory.getLogger(Qcow2Image.class);

  private final Layers layers;
  private final boolean readOnly;
  private final int refBatch;
  private final RangeLock clusters = new RangeLock();
  private final GuestReader reader;
  private final ReadAhead readAhead;
  private final ExtentWalk extents;
  private final GuestWriter writer;
  private final CompressedWriter compressedWriter;
  private final ZeroWriter zeroes;

  /** Null for an image whose clusters have no subclusters. */
  private final @Nullable SubclusterZeroes parts;

  private final QuickAccess quick;
  private final CommitOrder order;
  private final GroupCommit commits;

  /**
   * Whether the first change of the disk is still to come: before it autoclear bits are cleared,
   * bitmaps marked as in use, and the dirty bit set, as far as the image asks for that.
   */
  private volatile boolean headerPending;

  /**
   * Grows under {@link #snapshotChange} and, where it ends inside a cluster, with that cluster held
   * exclusively.
   */
  private volatile long virtualBytes;

  private boolean dirtyBitHeld;

  private boolean closed;

  private final boolean lazyRefcounts;
  private final SnapshotOperations snapshotOperations;

  /** Held by those who change snapshots, bitmaps or the disk's size. */
  private final ReentrantLock snapshotChange = new ReentrantLock();

  private final Growth growth;
  private final Shrinking shrinking;
  private final DirtyBitmaps bitmaps;
  private final BitmapOperations bitmapOperations;
  private final boolean ofSnapshot;

  /** Set once a revert made another L1 table the active one: nothing may be written any more. */
  private boolean reverted;

  Qcow2Image(Layers layers, OpenOptions options, boolean lazyRefcounts, DirtyBitmaps bitmaps) {
    this.bitmaps = bitmaps;
    this.layers = layers;
    this.virtualBytes = layers.virtualBytes();
    this.readOnly = options.readOnly();
    this.refBatch = options.refBatch();
    this.lazyRefcounts = lazyRefcounts;
    this.ofSnapshot = options.snapshot() != null;
    this.headerPending = !options.readOnly();
    this.reader = new GuestReader(layers);
    this.readAhead = new ReadAhead(layers, reader, clusters);
    this.extents = new ExtentWalk(layers);
    this.writer = new GuestWriter(layers, reader);
    this.compressedWriter = new CompressedWriter(layers);
    this.zeroes = new ZeroWriter(layers, extents);
    SubclusterMap subclusters = layers.map().subclusters();
    this.parts = subclusters == null ? null : new SubclusterZeroes(layers, subclusters, zeroes);
    this.quick = new QuickAccess(layers, clusters, bitmaps);
    int unwrittenMax = lazyRefcounts ? Integer.MAX_VALUE : options.refBatch();
    this.order = new CommitOrder(layers, true, unwrittenMax);
    this.commits =
        new GroupCommit(
            "commit " + layers.file().name(), order::run, IDLE_NANOS, order::giveBackWhenIdle);
    this.snapshotOperations =
        new SnapshotOperations(
            layers.file(),
            layers.geometry(),
            layers.metadata(),
            layers.map(),
            layers.allocator(),
            layers.directory(),
            layers.dirtyBit(),
            this::flush);
    this.bitmapOperations =
        new BitmapOperations(
            bitmaps, layers.allocator(), this::whileNothingChanges, layers.zeroFlagKnown());
    this.growth =
        new Growth(layers, clusters, reader, writer, zeroes, this::flush, this::afterChange);
    this.shrinking = new Shrinking(layers, zeroes, growth, this::flush, this::afterChange);
  }

  /**
   * Opens an image.
   *
   * @param storage owned by the image from now on, and closed if opening fails
   */
  public static Qcow2Image open(Storage storage, OpenOptions options, BackingOpener backings)
      throws IOException {
    return open(storage, options, backings, (what, done, total) -> {});
  }

  /** The same, told how far a rebuild of refcounts is, where the image needs one. */
  public static Qcow2Image open(
      Storage storage, OpenOptions options, BackingOpener backings, ProgressListener progress)
      throws IOException {
    return Qcow2Opener.open(storage, options, backings, progress);
  }

  @Override
  public long virtualBytes() {
    return virtualBytes;
  }

  @Override
  public boolean readOnly() {
    return readOnly;
  }

  /** Whether its data is. */
  boolean encrypted() {
    return layers.cryptMethod() != Header.CRYPT_NONE;
  }

  @Override
  public int clusterBytes() {
    return layers.geometry().clusterBytes();
  }

  @Override
  public int preferredBytes() {
    Geometry geometry = layers.geometry();
    return geometry.extendedL2() ? geometry.subclusterBytes() : geometry.clusterBytes();
  }

  @Override
  public void read(long offset, ByteBuffer target) throws IOException {
    Objects.checkFromIndexSize(offset, target.remaining(), virtualBytes());
    if (!target.hasRemaining()) {
      return;
    }
    int bytes = target.remaining();
    boolean compressed;
    RangeLock.Hold hold = hold(offset, bytes, false);
    try {
      compressed = reader.read(offset, target, ZeroParts.FILLED);
    } finally {
      clusters.release(hold);
    }
    if (compressed) {
      readAhead.after(offset, bytes, virtualBytes);
    }
  }

  @Override
  public void read(long offset, ByteBuffer target, ZeroRangeSink sink) throws IOException {
    Objects.checkFromIndexSize(offset, target.remaining(), virtualBytes());
    if (!target.hasRemaining()) {
      return;
    }
    ZeroParts.Told told = new ZeroParts.Told(target, sink);
    int bytes = target.remaining();
    boolean compressed;
    RangeLock.Hold hold = hold(offset, bytes, false);
    try {
      compressed = reader.read(offset, target, told);
    } finally {
      clusters.release(hold);
    }
    if (compressed) {
      readAhead.after(offset, bytes, virtualBytes);
    }
    told.end();
  }

  @Override
  public Attempt tryRead(long offset, ByteBuffer target) throws IOException {
    Objects.checkFromIndexSize(offset, target.remaining(), virtualBytes());
    return quick.read(offset, target);
  }

  @Override
  public boolean tryWrite(long offset, ByteBuffer source) throws IOException {
    Objects.checkFromIndexSize(offset, source.remaining(), virtualBytes());
    if (readOnly
        || headerPending
        || layers.failed()
        || encrypted()
        || layers.allocator().guard().suspicious()
        || !source.hasRemaining()) {
      return false;
    }
    order.noteChange();
    return quick.write(offset, source);
  }

  @Override
  public void extents(long offset, long bytes, ExtentSink sink) throws IOException {
    Objects.checkFromIndexSize(offset, bytes, virtualBytes());
    extents.walk(offset, bytes, sink);
  }

  @Override
  public void map(long offset, long bytes, MapSink sink) throws IOException {
    Objects.checkFromIndexSize(offset, bytes, virtualBytes());
    new MapWalk(layers).walk(offset, bytes, sink);
  }

  @Override
  public void write(long offset, ByteBuffer source) throws IOException {
    Objects.checkFromIndexSize(offset, source.remaining(), virtualBytes());
    if (!source.hasRemaining()) {
      return;
    }
    beforeChange();
    int start = source.position();
    RangeLock.Hold shared = hold(offset, source.remaining(), false);
    try {
      bitmaps.record(offset, source.remaining());
      if (writer.writeInPlace(offset, source)) {
        return;
      }
    } finally {
      clusters.release(shared);
    }
    long rest = offset + (source.position() - start);
    RangeLock.Hold exclusive = hold(rest, source.remaining(), true);
    try {
      bitmaps.record(rest, source.remaining());
      writer.write(rest, source);
    } finally {
      clusters.release(exclusive);
    }
    afterChange();
  }

  @Override
  public void writeCompressed(long offset, ByteBuffer source) throws IOException {
    Objects.checkFromIndexSize(offset, source.remaining(), virtualBytes());
    int bytes = source.remaining();
    long end = offset + bytes;
    int clusterBytes = layers.geometry().clusterBytes();
    if (layers.geometry().inCluster(offset) != 0
        || (bytes != clusterBytes && (bytes > clusterBytes || end != virtualBytes()))) {
      throw new IndexOutOfBoundsException(bytes + " bytes at " + offset + " are not one cluster");
    }
    if (layers.dataFile() != null || encrypted()) {
      write(offset, source); // no place for streams there, and they would be in the clear here
      return;
    }
    beforeChange();
    if (Zeroes.all(source, source.position(), source.limit())) {
      writeZeroes(offset, bytes, ZeroMode.MAY_UNMAP);
      source.position(source.limit());
      return;
    }
    ByteBuffer stream = compressedWriter.compress(source);
    RangeLock.Hold exclusive = hold(offset, bytes, true);
    try {
      bitmaps.record(offset, bytes);
      boolean whole = bytes == clusterBytes || end == virtualBytes; // it may have grown meanwhile
      if (whole
          && stream.hasRemaining()
          && compressedWriter.write(layers.geometry().clusterOf(offset), stream)) {
        source.position(source.limit());
      } else {
        writer.write(offset, source);
      }
    } finally {
      clusters.release(exclusive);
    }
    afterChange();
  }

  @Override
  public void writeZeroes(long offset, long bytes, ZeroMode mode) throws IOException {
    Objects.checkFromIndexSize(offset, bytes, virtualBytes());
    if (bytes == 0) {
      return;
    }
    beforeChange();
    Geometry geometry = layers.geometry();
    long end = offset + bytes;
    long first = geometry.clustersFor(offset);
    long last = end == virtualBytes() ? geometry.clustersFor(end) : geometry.clusterOf(end);
    if (first >= last) {
      zeroParts(offset, end, mode);
      return;
    }
    zeroParts(offset, geometry.offsetOf(first), mode);
    long done = forEachPiece(first, last, end, (cluster, n) -> zeroClusters(cluster, n, mode));
    zeroParts(Math.min(geometry.offsetOf(done), end), end, mode);
  }

  @Override
  public boolean tryFastZeroes(long offset, long bytes, ZeroMode mode) throws IOException {
    Objects.checkFromIndexSize(offset, bytes, virtualBytes());
    requireChangeable();
    boolean keep = mode == ZeroMode.KEEP_ALLOCATED;
    if (keep && !layers.zeroFlagKnown()) {
      return bytes == 0;
    }
    Geometry geometry = layers.geometry();
    long end = offset + bytes;
    long first = Math.max(geometry.clustersFor(offset), zeroes.firstThatCanDrop());
    long last = end == virtualBytes() ? geometry.clustersFor(end) : geometry.clusterOf(end);
    if (first >= last) {
      return tryFastZeroParts(offset, end, end, end, mode);
    }
    // Where the tables can't be made to say so, they must say so already; then nothing is changed
    // there, and it does not matter that no range is held: a write that comes in between the look
    // and the return comes after this in the order of the two.
    long behind = Math.min(geometry.offsetOf(last), end);
    if (!tryFastZeroParts(offset, geometry.offsetOf(first), behind, end, mode)) {
      return false;
    }
    beforeChange();
    if (!zeroesFast(first, mode)) {
      return false;
    }
    long done = forEachPiece(first, last, end, (cluster, n) -> zeroClusters(cluster, n, mode));
    if (done < last) {
      // The disk grew meanwhile, which once costs writing a part of its old last cluster.
      zeroParts(geometry.offsetOf(done), end, mode);
    }
    return true;
  }

  /**
   * Zeroes {@code [from, to)} and {@code [behind, end)}, which hold no whole cluster, unless that
   * takes more than a change of tables; then nothing is changed.
   */
  private boolean tryFastZeroParts(long from, long to, long behind, long end, ZeroMode mode)
      throws IOException {
    boolean keep = mode == ZeroMode.KEEP_ALLOCATED;
    if (parts == null) {
      return zeroes.isZeroAlready(from, to, keep) && zeroes.isZeroAlready(behind, end, keep);
    }
    long diskBytes = virtualBytes;
    if (!parts.canZeroFast(from, to, diskBytes, mode)
        || !parts.canZeroFast(behind, end, diskBytes, mode)) {
      return false;
    }
    beforeChange();
    zeroParts(from, to, mode);
    zeroParts(behind, end, mode);
    return true;
  }

  private boolean zeroesFast(long cluster, ZeroMode mode) throws IOException {
    RangeLock.Hold hold = clusters.acquire(cluster, cluster, true);
    try {
      return zeroes.zeroesFast(cluster, mode);
    } finally {
      clusters.release(hold);
    }
  }

  private void zeroClusters(long cluster, long count, ZeroMode mode) throws IOException {
    if (!zeroes.canDrop(cluster) || (mode == ZeroMode.KEEP_ALLOCATED && !layers.zeroFlagKnown())) {
      Geometry geometry = layers.geometry();
      long from = geometry.offsetOf(cluster);
      writeExplicitZeroes(from, Math.min(from + geometry.offsetOf(count), virtualBytes()), mode);
      return;
    }
    switch (mode) {
      case MAY_UNMAP -> zeroes.drop(cluster, count, Dropped.MARKED);
      case KEEP_ALLOCATED -> zeroes.keepAllocated(cluster, count);
    }
  }

  @Override
  public void trim(long offset, long bytes) throws IOException {
    Objects.checkFromIndexSize(offset, bytes, virtualBytes());
    Geometry geometry = layers.geometry();
    long end = offset + bytes;
    long first = geometry.clustersFor(offset);
    long last = end == virtualBytes() ? geometry.clustersFor(end) : geometry.clusterOf(end);
    if (readOnly) {
      throw readOnlyException();
    }
    if (first >= last) {
      trimParts(offset, end);
      return;
    }
    trimParts(offset, geometry.offsetOf(first));
    trimParts(Math.min(geometry.offsetOf(last), end), end);
    beforeChange();
    forEachPiece(
        first,
        last,
        end,
        (cluster, count) -> {
          if (zeroes.canDrop(cluster)) {
            zeroes.drop(cluster, count, Dropped.UNMAPPED);
          }
        });
  }

  /** Trims what there is of whole subclusters in a range without a whole cluster. */
  private void trimParts(long from, long to) throws IOException {
    if (parts == null || from >= to) {
      return;
    }
    beforeChange();
    RangeLock.Hold hold = hold(from, to - from, true);
    try {
      recordTrimmedParts(from, to);
      parts.trim(from, to, virtualBytes);
    } finally {
      clusters.release(hold);
    }
    afterChange();
  }

  /** What is less than a subcluster stays as it is, but for the one that the disk ends in. */
  private void recordTrimmedParts(long from, long to) {
    long unit = layers.geometry().subclusterBytes();
    long first = Math.ceilDiv(from, unit) * unit;
    long end = to == virtualBytes ? to : to / unit * unit;
    if (first < end) {
      bitmaps.record(first, end - first);
    }
  }

  private interface PieceAction {
    void run(long cluster, long count) throws IOException;
  }

  /**
   * Runs the action over {@code [first, last)} in pieces that lie in one L2 table each and are
   * wholly above or wholly below the end of the backing file, each with its range held exclusively.
   *
   * @param end of the request: inside the last cluster if the disk ends there. If it has grown
   *     since, that cluster is not the request's alone and is left out
   * @return the cluster behind the last one that was done
   */
  private long forEachPiece(long first, long last, long end, PieceAction action)
      throws IOException {
    Geometry geometry = layers.geometry();
    long backingEnd =
        layers.backing() == null ? 0 : geometry.clustersFor(layers.backing().virtualBytes());
    for (long cluster = first; cluster < last; ) {
      long max = Math.min(last - cluster, DROP_CLUSTERS_MAX);
      if (cluster < backingEnd) {
        max = Math.min(max, backingEnd - cluster);
      }
      long count = layers.map().clustersInTable(cluster, max);
      RangeLock.Hold hold = clusters.acquire(cluster, cluster + count - 1, true);
      try {
        boolean grown = geometry.offsetOf(cluster + count) > end && virtualBytes > end;
        long taken = grown ? count - 1 : count;
        if (taken > 0) {
          long from = geometry.offsetOf(cluster);
          bitmaps.record(from, Math.min(geometry.offsetOf(taken), end - from));
          action.run(cluster, taken);
        }
        if (grown) {
          return cluster + taken;
        }
      } finally {
        clusters.release(hold);
      }
      afterChange();
      cluster += count;
    }
    return last;
  }

  /** Zeroes parts of clusters; those that read as zeroes already are left alone. */
  private void zeroParts(long from, long to, ZeroMode mode) throws IOException {
    if (from >= to) {
      return;
    }
    RangeLock.Hold hold = hold(from, to - from, true);
    try {
      bitmaps.record(from, to - from);
      if (parts == null) {
        writeExplicitZeroes(from, to, mode);
      } else {
        boolean keep = mode == ZeroMode.KEEP_ALLOCATED;
        parts.zero(
            from,
            to,
            virtualBytes,
            mode,
            (at, end) -> {
              if (!zeroes.isZeroAlready(at, end, keep)) {
                writeExplicitZeroes(at, end, mode);
              }
            });
      }
    } finally {
      clusters.release(hold);
    }
    afterChange();
  }

  /** The same without the tables' help; the range is held exclusively. */
  private void writeExplicitZeroes(long from, long to, ZeroMode mode) throws IOException {
    for (long at = from; at < to; ) {
      long bytes = Math.min(to - at, Zeroes.blockBytes());
      if (mode == ZeroMode.MAY_UNMAP) {
        Mapping mapping = reader.lookup(at, bytes);
        bytes = mapping.bytes();
        if (readsAsZeroes(mapping, at)) {
          at += bytes;
          continue;
        }
      }
      writer.write(at, Zeroes.buffer((int) bytes));
      at += bytes;
    }
  }

  private boolean readsAsZeroes(Mapping mapping, long offset) {
    return switch (mapping) {
      case Mapping.Zeros _ -> true;
      case Mapping.Unallocated _ ->
          layers.backing() == null || offset >= layers.backing().virtualBytes();
      case Mapping.Data _, Mapping.Compressed _ -> false;
    };
  }

  @Override
  public void prefetch(long offset, long bytes) throws IOException {
    Objects.checkFromIndexSize(offset, bytes, virtualBytes());
    if (bytes == 0) {
      return;
    }
    RangeLock.Hold hold = hold(offset, bytes, false);
    try {
      for (long at = offset; at < offset + bytes; ) {
        Mapping mapping = reader.lookup(at, offset + bytes - at);
        switch (mapping) {
          case Mapping.Data data -> layers.data().prefetch(data.hostOffset(), data.bytes());
          case Mapping.Compressed compressed ->
              layers.file().prefetch(compressed.hostOffset(), compressed.compressedBytes());
          case Mapping.Unallocated unallocated -> prefetchBacking(at, unallocated.bytes());
          case Mapping.Zeros _ -> {}
        }
        at += mapping.bytes();
      }
    } finally {
      clusters.release(hold);
    }
  }

  private void prefetchBacking(long offset, long bytes) throws IOException {
    DiskImage backing = layers.backing();
    if (backing != null && offset < backing.virtualBytes()) {
      backing.prefetch(offset, Math.min(bytes, backing.virtualBytes() - offset));
    }
  }

  @Override
  public CompletionStage<@Nullable Void> commit() {
    return commits.request();
  }

  @Override
  public void flush() throws IOException {
    await(commits.request());
  }

  private static void await(CompletionStage<@Nullable Void> stage) throws IOException {
    try {
      stage.toCompletableFuture().join();
    } catch (CompletionException e) {
      // A new exception, for the trace of the thread that waited.
      if (e.getCause() instanceof NoSpaceException full) {
        NoSpaceException again = new NoSpaceException(String.valueOf(full.getMessage()));
        again.initCause(full);
        throw again;
      }
      if (e.getCause() instanceof IOException cause) {
        throw new IOException(cause.getMessage(), cause);
      }
      throw e;
    }
  }

  private RangeLock.Hold hold(long offset, long bytes, boolean exclusive) {
    Geometry geometry = layers.geometry();
    return clusters.acquire(
        geometry.clusterOf(offset), geometry.clusterOf(offset + bytes - 1), exclusive);
  }

  private ReadOnlyImageException readOnlyException() {
    return new ReadOnlyImageException(layers.file().name() + " is open read-only");
  }

  /** Refuses a change of an image that is read-only, corrupt, or whose sync has failed. */
  private void requireChangeable() throws IOException {
    if (readOnly) {
      throw readOnlyException();
    }
    String failure = layers.failure();
    if (failure != null) {
      // Also for those that would change tables in memory only: they could never become durable.
      throw new IOException(failure);
    }
    Guard guard = layers.allocator().guard();
    if (guard.suspicious()) {
      layers.metadata().lock();
      try {
        guard.requireSound();
      } finally {
        layers.metadata().unlock();
      }
    }
  }

  /** Refuses what can't be changed; before the first change of the disk prepares the header. */
  private void beforeChange() throws IOException {
    requireChangeable();
    order.noteChange();
    if (headerPending) {
      prepareHeader(true);
    }
  }

  /** The same for a change that leaves what a guest reads as it is. */
  private void beforeFormatChange() throws IOException {
    requireChangeable();
    order.noteChange();
    if (headerPending) {
      prepareHeader(false);
    }
  }

  /** All of it is durable before the change is: other software trusts what these bits say. */
  private void prepareHeader(boolean forDisk) throws IOException {
    layers.metadata().lock();
    try {
      if (headerPending) {
        bitmaps.clearAutoclear();
        if (forDisk) {
          bitmaps.begin();
        }
        if (lazyRefcounts && !dirtyBitHeld) {
          layers.dirtyBit().set();
          dirtyBitHeld = true;
        }
        headerPending = !forDisk;
      }
    } finally {
      layers.metadata().unlock();
    }
  }

  /**
   * Keeps what waits for a commit within its bounds: a full batch asks for one, a batch twice as
   * long, or half an L2 cache that is dirty, waits for it.
   */
  private void afterChange() throws IOException {
    int released;
    boolean crowded;
    layers.metadata().lock();
    try {
      released = layers.allocator().releasedCount();
      crowded = layers.map().crowded();
    } finally {
      layers.metadata().unlock();
    }
    if (crowded || released > 2L * refBatch) {
      flush();
    } else if (released > 0 && released >= refBatch) {
      commits.request();
    }
  }

  @Override
  public void close() throws IOException {
    if (closed) {
      return;
    }
    closed = true;
    DataFile dataFile = layers.dataFile();
    try (Storage _ = dataFile == null ? null : dataFile.storage();
        Storage file = layers.file()) {
      @Nullable IOException notStored = null;
      try {
        if (!readOnly && !reverted) {
          notStored = storeBitmaps();
          flush();
        }
      } finally {
        commits.close();
        readAhead.close();
        layers.codec().close();
        layers.cache().close();
        if (layers.backing() != null) {
          layers.backing().close();
        }
      }
      // With a suspicion nothing was changed, nor is anything looked up that may be damaged.
      if (!readOnly && !reverted && !layers.allocator().guard().suspicious()) {
        giveBackReserved(file);
      }
      if (notStored != null) {
        throw notStored;
      }
    }
  }

  /**
   * Before the last flush, for what that frees: bitmaps may say too much.
   *
   * @return why they are now ones that can't be believed, or null; no reason not to close the rest
   */
  private @Nullable IOException storeBitmaps() {
    try {
      bitmapOperations.close();
      return null;
    } catch (IOException e) {
      return e;
    }
  }

  /**
   * Counts what was reserved as free, cuts it off the end of the file, and makes that durable. If
   * no count was ever changed, then none at the end of the file is looked at, which may be damaged;
   * what a rebuild or a crash has left there stays until one is.
   */
  private void giveBackReserved(Storage file) throws IOException {
    layers.metadata().lock();
    try {
      layers.allocator().drain();
      layers.allocator().writeRefcounts();
      if (layers.allocator().refcountWrites() > 0) {
        long used = layers.allocator().cuttableEnd(file.length());
        if (used < file.length()) {
          file.setLength(used);
        }
      }
      file.sync();
      if (dirtyBitHeld) {
        layers.dirtyBit().clear();
      }
    } finally {
      layers.metadata().unlock();
    }
  }

  // ---- snapshots

  @Override
  public Snapshots snapshots() {
    return new Snapshots() {
      @Override
      public List<ImageReport.Snapshot> list() {
        return snapshotOperations.list().stream()
            .map(entry -> Inspector.describe(entry, virtualBytes()))
            .toList();
      }

      @Override
      public void create(String name) throws IOException {
        requireSnapshotsPossible();
        formatChange(() -> whileFrozen(() -> snapshotOperations.create(name, virtualBytes())));
      }

      @Override
      public void delete(String snapshot) throws IOException {
        formatChange(() -> snapshotOperations.delete(snapshot));
      }

      @Override
      public void rename(String snapshot, String name) throws IOException {
        formatChange(() -> snapshotOperations.rename(snapshot, name));
      }
    };
  }

  private void requireSnapshotsPossible() throws UnsupportedImageException {
    if (layers.dataFile() != null) {
      throw new UnsupportedImageException(
          layers.file().name()
              + ": its data is in an external data file, where the format has no place for"
              + " snapshots");
    }
  }

  private interface Change {
    void run() throws IOException;
  }

  /** One change of snapshots and bitmaps at a time. */
  private void formatChange(Change change) throws IOException {
    beforeFormatChange();
    snapshotChange.lock();
    try {
      change.run();
    } finally {
      snapshotChange.unlock();
    }
  }

  /** Waits for the requests in flight and holds up those that come, commits apart. */
  private void whileFrozen(Change change) throws IOException {
    // What is dirty now is committed before requests have to wait.
    flush();
    RangeLock.Hold all = clusters.acquire(0, Long.MAX_VALUE, true);
    try {
      change.run();
    } finally {
      clusters.release(all);
    }
  }

  /** Between the requests, so to speak: each has been recorded in the bitmaps and done, or not. */
  private void whileNothingChanges(Runnable action) {
    RangeLock.Hold all = clusters.acquire(0, Long.MAX_VALUE, true);
    try {
      action.run();
    } finally {
      clusters.release(all);
    }
  }

  /**
   * Makes a snapshot's tables the disk's own. The image must be at rest; it takes no more requests
   * and is closed next, and then the file's refcounts are rebuilt.
   *
   * @return the bitmaps that are to be made right when the image is open again
   */
  List<String> revertTo(String snapshot) throws IOException {
    requireSnapshotsPossible();
    beforeChange();
    snapshotChange.lock();
    try {
      long bytes = snapshotOperations.virtualBytes(snapshot, virtualBytes());
      List<String> wrong = bitmapOperations.beforeRevert(bytes);
      whileFrozen(() -> {
        reverted = true;
        snapshotOperations.revert(snapshot, virtualBytes());
      });
      return wrong;
    } finally {
      snapshotChange.unlock();
    }
  }

  /** The end of {@link #revertTo}, after the rebuild. */
  void rightBitmaps(List<String> wrong) throws IOException {
    formatChange(() -> bitmapOperations.afterRevert(wrong));
  }

  @Override
  public ImageStats stats() {
    layers.metadata().lock();
    try {
      AllocatorCounters counters = layers.allocator().counters();
      return new ImageStats(
          counters.batched(),
          counters.coalesced(),
          counters.cancelled(),
          counters.applied(),
          counters.reserved(),
          counters.returned(),
          counters.reused(),
          layers.allocator().refcountWrites(),
          order.tableWrites(),
          layers.syncs(),
          commits.commits(),
          commits.requests());
    } finally {
      layers.metadata().unlock();
    }
  }

  // ---- growing

  @Override
  public void resize(long bytes) throws IOException {
    if (readOnly) {
      throw readOnlyException();
    }
    snapshotChange.lock();
    try {
      growth.check(virtualBytes, bytes);
      if (bytes != virtualBytes) {
        bitmapOperations.requireResizable(bytes);
        beforeChange();
        grow(bytes);
      }
    } finally {
      snapshotChange.unlock();
    }
  }

  private void grow(long bytes) throws IOException {
    bitmapOperations.beforeGrowth(bytes);
    try {
      growth.grow(
          virtualBytes,
          bytes,
          () -> {
            bitmapOperations.resized(bytes);
            virtualBytes = bytes;
          });
    } finally {
      try {
        bitmapOperations.afterGrowth();
      } catch (IOException e) {
        LOG.warn("{}, so bitmaps are out of date in it until it is closed", e.getMessage());
      }
    }
  }

  /** Makes the disk smaller; what lies behind its new end is lost. The image must be at rest. */
  void shrink(long bytes) throws IOException {
    shrinking.check(bytes);
    bitmapOperations.requireResizable(bytes);
    formatChange(() -> {
      long old = virtualBytes;
      BitmapOperations.Shorter shorter = bitmapOperations.beforeShrinking(bytes);
      RangeLock.Hold all = clusters.acquire(0, Long.MAX_VALUE, true);
      try {
        virtualBytes = bytes; // which the header has even if what follows fails
        shrinking.shrink(old, bytes);
      } finally {
        clusters.release(all);
      }
      bitmapOperations.afterShrinking(shorter, bytes);
    });
  }

  /** Makes the disk do without marks for zeroes; see {@link ZeroExpansion}. At rest. */
  void expandZeroes(ProgressListener progress) throws IOException {
    beforeChange();
    new ZeroExpansion(this, layers, reader, zeroes).run(this::afterChange, progress);
    flush();
  }

  /** Gives what reads as zeroes in the range host clusters, with space behind them or without. */
  void preallocate(long offset, long bytes, Preallocation how, ProgressListener progress)
      throws IOException {
    Geometry geometry = layers.geometry();
    // Space in the image file that holds zeroes is no answer to a subcluster, to a cipher, for
    // which
    // it is noise, and to data that has its place in another file.
    boolean asGuest = geometry.extendedL2() || encrypted() || layers.dataFile() != null;
    if (asGuest && how != Preallocation.FULL) {
      writeZeroes(offset, bytes, ZeroMode.KEEP_ALLOCATED);
      return;
    }
    if (asGuest) {
      for (long at = offset; at < offset + bytes; ) {
        int piece = (int) Math.min(Zeroes.blockBytes(), offset + bytes - at);
        write(at, Zeroes.buffer(piece));
        at += piece;
        progress.progress("preallocating", at - offset, bytes);
      }
      return;
    }
    beforeChange();
    new Preallocating(layers, clusters, this::afterChange)
        .run(geometry.clusterOf(offset), geometry.clustersFor(offset + bytes), how, progress);
  }

  // ---- compacting

  @Override
  public Compaction compact(ProgressListener progress) throws IOException {
    if (layers.dataFile() != null) {
      throw new UnsupportedImageException(
          layers.file().name()
              + ": has an external data file and can't be compacted; qnbd convert makes a copy");
    }
    bitmaps.requireUndamaged(); // a repair may save them, and this would not
    Compaction[] done = new Compaction[1];
    formatChange(() ->
        done[0] =
            new Compacting(
                    layers,
                    clusters,
                    growth,
                    () -> {
                      snapshotOperations.requireCounted();
                      bitmapOperations.requireCounted();
                    },
                    this::flush,
                    this::afterChange,
                    progress)
                .run(virtualBytes));
    return done[0];
  }

  // ---- changes at rest

  /** What lies below; null for nothing. Closed with the image. */
  @Nullable DiskImage backing() {
    return layers.backing();
  }

  /** Replaces the header by another; durable when this returns. The image must be at rest. */
  void changeHeader(UnaryOperator<Header> change) throws IOException {
    beforeChange();
    flush();
    layers.metadata().lock();
    try {
      Header header = ImageFile.of(layers.file()).readHeader();
      HeaderRewrite.write(layers.file(), change.apply(header));
    } finally {
      layers.metadata().unlock();
    }
  }

  /** Forgets all that the disk has of its own, so that it reads as what lies below. At rest. */
  void empty(ProgressListener progress) throws IOException {
    beforeChange();
    for (int index = 0; index < layers.map().l1Entries(); index++) {
      layers.metadata().lock();
      try {
        layers.map().dropTable(index);
      } finally {
        layers.metadata().unlock();
      }
      afterChange();
      progress.progress("emptying", index + 1, layers.map().l1Entries());
    }
    flush();
  }

  // ---- dirty bitmaps

  @Override
  public List<BitmapInfo> consistentBitmaps() {
    return bitmaps.list().stream().filter(BitmapInfo::consistent).toList();
  }

  @Override
  public void dirtyExtents(String bitmap, long offset, long bytes, DirtySink sink)
      throws IOException {
    bitmaps.extents(bitmap, offset, bytes, sink);
  }

  @Override
  public Bitmaps bitmaps() throws UnsupportedImageException {
    if (ofSnapshot) {
      throw new UnsupportedImageException(
          layers.file().name() + ": its bitmaps do not describe a snapshot");
    }
    return new Bitmaps() {
      @Override
      public List<BitmapInfo> list() {
        return bitmaps.list();
      }

      @Override
      public void requireAllListed() throws CorruptImageException {
        bitmaps.requireAllListed();
      }

      @Override
      public void add(String name, long granularityBytes, boolean enabled) throws IOException {
        changeBitmaps(() -> bitmapOperations.add(name, granularityBytes, enabled, null));
      }

      @Override
      public void replace(String old, String name, long granularityBytes) throws IOException {
        changeBitmaps(() -> bitmapOperations.add(name, granularityBytes, true, old));
      }

      @Override
      public void remove(String name) throws IOException {
        changeBitmaps(() -> bitmapOperations.remove(name));
      }

      @Override
      public void enable(String name) throws IOException {
        changeBitmaps(() -> bitmapOperations.enable(name));
      }

      @Override
      public void disable(String name) throws IOException {
        changeBitmaps(() -> bitmapOperations.disable(name));
      }

      @Override
      public void clear(String name) throws IOException {
        changeBitmaps(() -> bitmapOperations.clear(name));
      }

      @Override
      public void merge(String target, String source) throws IOException {
        merge(target, Qcow2Image.this, source);
      }

      @Override
      public void merge(String target, DiskImage image, String source) throws IOException {
        changeBitmaps(() -> bitmapOperations.merge(target, image, source));
      }
    };
  }

  /** What was released is free when this returns. */
  private void changeBitmaps(Change change) throws IOException {
    formatChange(change);
    flush();
  }
}
