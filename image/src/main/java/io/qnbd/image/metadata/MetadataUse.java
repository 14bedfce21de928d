package io.qnbd.image.metadata;

/** What a cluster of metadata is for. */
public enum MetadataUse {
  HEADER(1, "header", true),
  L1_TABLE(2, "L1 table", true),
  REFCOUNT_TABLE(3, "refcount table", true),
  SNAPSHOT_TABLE(4, "snapshot table", true),
  SNAPSHOT_L1_TABLE(5, "snapshot's L1 table", true),
  BITMAPS(6, "bitmap directory", true),
  ENCRYPTION_HEADER(7, "encryption header", true),
  L2_TABLE(8, "L2 table", false),
  REFCOUNT_BLOCK(9, "refcount block", false);

  private static final MetadataUse[] USES = values();

  private final int number;
  private final String text;
  private final boolean constant;

  MetadataUse(int number, String text, boolean constant) {
    this.number = number;
    this.text = text;
    this.constant = constant;
  }

  /** Whether there are few of them, which seldom move. */
  boolean constant() {
    return constant;
  }

  /** 1 to 15, for a table of many; {@link #of} knows it again. */
  int number() {
    return number;
  }

  static MetadataUse of(int number) {
    return USES[number - 1];
  }

  @Override
  public String toString() {
    return text;
  }
}
