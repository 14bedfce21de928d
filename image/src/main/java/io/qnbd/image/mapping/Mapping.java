package io.qnbd.image.mapping;

/** Where the bytes of a run of the virtual disk are. Each has {@code bytes}, the run's length. */
public sealed interface Mapping {

  /** Bytes of the virtual disk, from the offset that was looked up, that this describes. */
  long bytes();

  /**
   * In the image file, in a row.
   *
   * @param hostOffset where the first byte is
   * @param sole the refcounts are one, so the bytes may be written in place
   */
  record Data(long hostOffset, boolean sole, long bytes) implements Mapping {}

  /**
   * Marked as reading as zeroes.
   *
   * @param hostOffset where the first byte would go if it is allocated all the same, else 0
   * @param sole the allocated clusters have refcount one
   */
  record Zeros(long hostOffset, boolean sole, long bytes) implements Mapping {
    public boolean allocated() {
      return hostOffset != 0;
    }
  }

  /**
   * In one compressed cluster.
   *
   * @param hostOffset where its stream begins
   * @param compressedBytes the most bytes that the stream takes
   * @param bytes from the offset looked up to the end of the cluster or of the request
   */
  record Compressed(long hostOffset, int compressedBytes, long bytes) implements Mapping {}

  /** Not here: in the backing file, or zeroes where there is none. */
  record Unallocated(long bytes) implements Mapping {}
}
