package io.qnbd.image.create;

import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.HeaderRules;
import io.qnbd.image.format.L1Entry;

/**
 * Where the parts of a new image stand: header, refcount table, refcount blocks, L1 table, with
 * preallocated metadata L2 tables, the encryption header, and with preallocated metadata data, each
 * in whole clusters, without gaps.
 *
 * @param guestClusters clusters of the virtual disk
 * @param refcountTableClusters long enough for the image when all of the disk is allocated, as far
 *     as the format's limit allows, so that the table hardly ever needs to move
 * @param content what follows the tables
 */
record Layout(
    Geometry geometry,
    long guestClusters,
    int l1Entries,
    int refcountTableClusters,
    long refcountBlocks,
    boolean preallocated,
    Content content) {

  /**
   * What follows the tables.
   *
   * @param encryptionBytes of the encryption header, or 0
   * @param dataHere whether preallocated clusters are in the image and not in a data file
   */
  record Content(int encryptionBytes, boolean dataHere) {}

  static Layout of(Geometry geometry, long virtualBytes, boolean preallocated, Content content) {
    long guestClusters = geometry.clustersFor(virtualBytes);
    int l1Entries =
        (int) HeaderRules.l1EntriesFor(virtualBytes, geometry.clusterBits(), geometry.extendedL2());
    Layout full = grown(new Layout(geometry, guestClusters, l1Entries, 1, 1, true, content));
    int clustersMax = (int) geometry.clustersFor(HeaderRules.REFCOUNT_TABLE_BYTES_MAX);
    int tableClusters = Math.min(full.refcountTableClusters, clustersMax);
    return grown(
        new Layout(geometry, guestClusters, l1Entries, tableClusters, 1, preallocated, content));
  }

  /** Enough refcount blocks, and entries for them, for everything and for themselves. */
  private static Layout grown(Layout layout) {
    while (true) {
      Geometry geometry = layout.geometry;
      long blocks = Math.ceilDiv(layout.clusters(), geometry.refcountBlockEntries());
      long tableClusters = geometry.clustersFor(blocks * Long.BYTES);
      if (blocks <= layout.refcountBlocks && tableClusters <= layout.refcountTableClusters) {
        return layout;
      }
      layout =
          new Layout(
              geometry,
              layout.guestClusters,
              layout.l1Entries,
              Math.max(layout.refcountTableClusters, Math.toIntExact(tableClusters)),
              Math.max(layout.refcountBlocks, blocks),
              layout.preallocated,
              layout.content);
    }
  }

  /** Clusters of the whole file. */
  long clusters() {
    return firstDataCluster() + (preallocated && content.dataHere() ? guestClusters : 0);
  }

  long refcountTableOffset() {
    return geometry.offsetOf(1);
  }

  long refcountBlockOffset(long index) {
    return geometry.offsetOf(1 + refcountTableClusters + index);
  }

  long l1Offset() {
    return refcountBlockOffset(refcountBlocks);
  }

  long l2Offset(long index) {
    return l1Offset()
        + geometry.offsetOf(geometry.clustersFor((long) l1Entries * L1Entry.BYTES) + index);
  }

  long encryptionOffset() {
    return l2Offset(preallocated ? l1Entries : 0);
  }

  long firstDataCluster() {
    return geometry.clusterOf(encryptionOffset()) + geometry.clustersFor(content.encryptionBytes());
  }
}
