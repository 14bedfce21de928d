package io.qnbd.image.disk;

import io.qnbd.image.disk.GuestWriter.Surroundings;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Subclusters;
import io.qnbd.image.mapping.SubclusterMap;
import io.qnbd.image.mapping.SubclusterMap.Before;
import io.qnbd.image.mapping.SubclusterMap.Place;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * Writes guest bytes to subclusters that can't be written in place. What surrounds the bytes is
 * filled in to the borders of their subclusters only; the other subclusters stay what they are, but
 * for those that the image has in a host cluster that is replaced, which are copied.
 *
 * <p>Order within a write, as in {@link GuestWriter}: the data first, then the entry in memory. In
 * a cluster that the guest has already, only subclusters that the entry does not refer to are
 * filled up, so that a power cut finds the others as they were, or with the guest's new bytes.
 *
 * <p>Thread-safe; the caller holds the range of the clusters exclusively.
 */
final class SubclusterWriter {
  private final Layers layers;
  private final SubclusterMap map;
  private final GuestWriter writer;

  SubclusterWriter(Layers layers, SubclusterMap map, GuestWriter writer) {
    this.layers = layers;
    this.map = map;
    this.writer = writer;
  }

  /** Writes as much of {@code source} as one run of host clusters takes. */
  void writeSome(long offset, ByteBuffer source) throws IOException {
    Geometry geometry = layers.geometry();
    long cluster = geometry.clusterOf(offset);
    long last = geometry.clusterOf(offset + source.remaining() - 1);
    Place place;
    layers.metadata().lock();
    try {
      layers.map().prepare(cluster);
      place = map.place(cluster, last - cluster + 1);
    } finally {
      layers.metadata().unlock();
    }
    boolean done = false;
    try {
      write(place, offset, source);
      done = true;
    } finally {
      if (!done && !place.own()) {
        giveBack(place.run());
      }
    }
  }

  private void giveBack(HostRun run) {
    layers.metadata().lock();
    try {
      layers.clusters().giveBack(run);
    } finally {
      layers.metadata().unlock();
    }
  }

  private void write(Place place, long offset, ByteBuffer source) throws IOException {
    Geometry geometry = layers.geometry();
    int subclusterBytes = geometry.subclusterBytes();
    int inCluster = geometry.inCluster(offset);
    long runBytes = geometry.offsetOf(place.run().count());
    int data = (int) Math.min(source.remaining(), runBytes - inCluster);
    long host = geometry.offsetOf(place.run().first()) + inCluster;
    int first = geometry.subclusterOf(offset);
    int last = geometry.subclusterOf(offset + data - 1);
    int inFirst = inCluster % subclusterBytes;
    int inLast = Math.floorMod(-(inCluster + data), subclusterBytes);
    boolean zero =
        place.own()
            ? layers.data().isHole(host - inFirst, (long) inFirst + data + inLast)
            : place.fresh();
    Border head = Border.of(place.first(), first, inFirst, subclusterBytes, -1);
    Border tail = Border.of(place.last(), last, inLast, subclusterBytes, 1);
    Surroundings around = new Surroundings(zero, head.zero(), tail.zero());
    writer.writeAround(offset, host, head.bytes(), data, tail.bytes(), around, source);
    copy(place, Subclusters.mask(0, head.subcluster()) & place.first().kept(), offset, host);
    int above = Subclusters.mask(tail.subcluster() + 1, Subclusters.COUNT);
    copy(place, above & place.last().kept(), offset + data - 1, host + data - 1);
    layers.metadata().lock();
    try {
      map.written(place, offset, data, zero);
    } finally {
      layers.metadata().unlock();
    }
  }

  /**
   * What must surround the guest's bytes on one side, in a row.
   *
   * @param bytes so many
   * @param zero whether the old bytes there read as zeroes
   * @param subcluster the last subcluster that is whole with them, away from the guest's bytes
   */
  private record Border(int bytes, boolean zero, int subcluster) {
    /**
     * A border in {@code subcluster}, of which the guest leaves {@code rest} bytes.
     *
     * @param step to the next subcluster away from the guest's bytes
     */
    static Border of(Before before, int subcluster, int rest, int subclusterBytes, int step) {
      int bytes = has(before.inPlace(), subcluster) ? 0 : rest;
      boolean zero = has(before.zeroes(), subcluster);
      int next = subcluster;
      while (has(before.kept(), next + step)) {
        next += step;
        bytes += subclusterBytes;
        zero = false;
      }
      return new Border(bytes, zero, next);
    }

    private static boolean has(int mask, int subcluster) {
      return subcluster >= 0 && subcluster < Subclusters.COUNT && (mask >> subcluster & 1) != 0;
    }
  }

  /** Copies subclusters of the cluster of {@code offset}, whose byte goes to {@code host}. */
  private void copy(Place place, int mask, long offset, long host) throws IOException {
    Geometry geometry = layers.geometry();
    long guestStart = offset - geometry.inCluster(offset);
    long hostStart = host - geometry.inCluster(offset);
    for (int first = 0; first < Subclusters.COUNT; first++) {
      int count = Subclusters.run(mask, first);
      if (count > 0) {
        long in = (long) first * geometry.subclusterBytes();
        int bytes = count * geometry.subclusterBytes();
        writer.copy(guestStart + in, bytes, hostStart + in, place.fresh());
        first += count;
      }
    }
  }
}
