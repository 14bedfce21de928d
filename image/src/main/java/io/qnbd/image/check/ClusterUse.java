package io.qnbd.image.check;

/** What a host cluster is for, as the thing that points to it says. */
enum ClusterUse {
  HEADER(1, "header"),
  L1_TABLE(2, "L1 table"),
  L2_TABLE(3, "L2 table"),
  REFCOUNT_TABLE(4, "refcount table"),
  REFCOUNT_BLOCK(5, "refcount block"),
  SNAPSHOT_TABLE(6, "snapshot table"),
  BITMAP(7, "bitmap"),
  ENCRYPTION_HEADER(8, "encryption header"),
  DATA(9, "data");

  private final int number;
  private final String text;

  ClusterUse(int number, String text) {
    this.number = number;
    this.text = text;
  }

  /** From 1 on, in the order of the values. */
  int number() {
    return number;
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
