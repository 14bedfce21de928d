package io.qnbd.image.refcount;

import java.io.IOException;

/**
 * Where guest clusters get their host clusters from: the image's own, counted ones, or their fixed
 * places in an external data file, which nobody counts.
 *
 * <p>Owner: the image's metadata lock.
 */
public sealed interface DataClusters {

  /**
   * Takes up to {@code wanted} host clusters in a row, at least one, for the guest clusters from
   * {@code guestCluster} on.
   *
   * @throws io.qnbd.image.NoSpaceException when the host or the format has no room for one more
   */
  HostRun allocate(long guestCluster, int wanted) throws IOException;

  /** Whether a guest would read the run as zeroes, also after a power cut. */
  boolean fresh(HostRun run);

  /** Takes back a run that no entry came to refer to; it may have been written to. */
  void giveBack(HostRun run);

  /** An entry that referred to the cluster was overwritten in memory. */
  void release(long cluster);

  /** Whether each guest cluster has its one place, at the same offset in a file of its own. */
  boolean fixed();

  /**
   * The image's own clusters.
   *
   * @param zeroesReadAsZeroes whether a host cluster of zeroes is one for the guest: not where it
   *     is decrypted
   */
  static DataClusters of(Allocator allocator, boolean zeroesReadAsZeroes) {
    return new Counted(allocator, zeroesReadAsZeroes);
  }

  /** The clusters of an external data file. */
  static DataClusters inDataFile() {
    return new Fixed();
  }

  /** See {@link #of}. */
  record Counted(Allocator allocator, boolean zeroesReadAsZeroes) implements DataClusters {
    @Override
    public HostRun allocate(long guestCluster, int wanted) throws IOException {
      return allocator.allocate(wanted);
    }

    @Override
    public boolean fresh(HostRun run) {
      return zeroesReadAsZeroes && allocator.fresh(run);
    }

    @Override
    public void giveBack(HostRun run) {
      allocator.giveBack(run);
    }

    @Override
    public void release(long cluster) {
      allocator.release(cluster);
    }

    @Override
    public boolean fixed() {
      return false;
    }
  }

  /** See {@link #inDataFile}. What was there before, in a part that was zeroed, may still be. */
  record Fixed() implements DataClusters {
    @Override
    public HostRun allocate(long guestCluster, int wanted) {
      return new HostRun(guestCluster, wanted, HostRun.NEVER, false);
    }

    @Override
    public boolean fresh(HostRun run) {
      return false;
    }

    @Override
    public void giveBack(HostRun run) {}

    @Override
    public void release(long cluster) {}

    @Override
    public boolean fixed() {
      return true;
    }
  }
}
