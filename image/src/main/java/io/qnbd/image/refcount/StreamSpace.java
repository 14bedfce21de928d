package io.qnbd.image.refcount;

/**
 * Where compressed clusters are put: one behind the other, to the byte, so that several share a
 * host cluster. It holds no space of its own: a host cluster is open only as long as streams in it
 * are counted, and what is left of it when another is opened stays unused.
 *
 * <p>Owner: the image's metadata lock, through its {@link Allocator}.
 */
final class StreamSpace {
  private static final long NONE = -1;

  private final int clusterBytes;
  private long openCluster = NONE;

  /** Bytes of the open cluster that are taken: 1 to all but one. */
  private int taken;

  StreamSpace(int clusterBytes) {
    this.clusterBytes = clusterBytes;
  }

  /** The open cluster if it has any room; a negative number if there is none. */
  long openCluster() {
    return openCluster;
  }

  /** Bytes of the open cluster that are taken. */
  int taken() {
    return taken;
  }

  /** What is left of the open cluster. */
  int room() {
    return openCluster == NONE ? 0 : clusterBytes - taken;
  }

  /** Leaves the cluster open in which a stream ends that was put there last. */
  void endsIn(long cluster, int bytesTaken) {
    if (bytesTaken == clusterBytes) {
      openCluster = NONE;
    } else {
      openCluster = cluster;
      taken = bytesTaken;
    }
  }

  /** Nothing refers to the cluster any more, so nothing may be added to it. */
  void unused(long cluster) {
    if (cluster == openCluster) {
      openCluster = NONE;
    }
  }
}
