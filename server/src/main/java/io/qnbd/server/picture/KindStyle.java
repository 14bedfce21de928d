package io.qnbd.server.picture;

import io.qnbd.image.ClusterKind;

/**
 * How a kind of cluster looks. Guest data is blue and green, the format's own is amber and brown,
 * what is lost is red, what is empty is pale. The hues stay apart for colour-blind eyes because
 * their lightness differs.
 */
enum KindStyle {
  DATA(ClusterKind.DATA, "#3a6fb7", "data"),
  COMPRESSED(ClusterKind.COMPRESSED, "#7a4fb5", "compressed data"),
  SHARED(ClusterKind.SHARED, "#0f8a7a", "data shared with snapshots"),
  SNAPSHOT(ClusterKind.SNAPSHOT, "#7cc8bb", "data of one snapshot only"),
  ZERO(ClusterKind.ZERO, "#bcd4f0", "zeroes, preallocated"),
  HEADER(ClusterKind.HEADER, "#2b2b2b", "header"),
  L1_TABLE(ClusterKind.L1_TABLE, "#8c5a00", "L1 tables"),
  L2_TABLE(ClusterKind.L2_TABLE, "#f0b429", "L2 tables"),
  REFCOUNTS(ClusterKind.REFCOUNTS, "#cf7a1e", "reference counts"),
  SNAPSHOT_TABLE(ClusterKind.SNAPSHOT_TABLE, "#5f4632", "snapshot table"),
  BITMAP(ClusterKind.BITMAP, "#a8906f", "dirty bitmaps"),
  ENCRYPTION_HEADER(ClusterKind.ENCRYPTION_HEADER, "#5b6b7b", "encryption header"),
  LEAKED(ClusterKind.LEAKED, "#d61f3a", "leaked"),
  FREE(ClusterKind.FREE, "#d4d8de", "free, space kept by the host"),
  HOLE(ClusterKind.HOLE, "#f1f3f6", "free, a hole of the file");

  private final ClusterKind kind;
  private final String fill;
  private final String label;

  KindStyle(ClusterKind kind, String fill, String label) {
    this.kind = kind;
    this.fill = fill;
    this.label = label;
  }

  ClusterKind kind() {
    return kind;
  }

  String fill() {
    return fill;
  }

  String label() {
    return label;
  }
}
