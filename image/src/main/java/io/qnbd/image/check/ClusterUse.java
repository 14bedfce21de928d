package io.qnbd.image.check;

/** What a host cluster is for, as the thing that points to it says. */
enum ClusterUse {
  HEADER("header"),
  L1_TABLE("L1 table"),
  L2_TABLE("L2 table"),
  REFCOUNT_TABLE("refcount table"),
  REFCOUNT_BLOCK("refcount block"),
  SNAPSHOT_TABLE("snapshot table"),
  BITMAP("bitmap"),
  ENCRYPTION_HEADER("encryption header"),
  DATA("data");

  private final String text;

  ClusterUse(String text) {
    this.text = text;
  }

  /**
   * Whether several references to one cluster are in order: snapshots share data and L2 tables,
   * everything else has one owner.
   */
  boolean shareable() {
    return this == L2_TABLE || this == DATA;
  }

  @Override
  public String toString() {
    return text;
  }
}
