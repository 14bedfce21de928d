package io.qnbd.image.format;

/**
 * Where each field of the header stands, in bytes from the start of the file; all big-endian (qcow2
 * specification, "Header").
 *
 * <pre>
 *   0  4 magic                      48 8 refcount_table_offset
 *   4  4 version                    56 4 refcount_table_clusters
 *   8  8 backing_file_offset        60 4 nb_snapshots
 *  16  4 backing_file_size          64 8 snapshots_offset
 *  20  4 cluster_bits               72 8 incompatible_features   version 3 from here on
 *  24  8 size                       80 8 compatible_features
 *  32  4 crypt_method               88 8 autoclear_features
 *  36  4 l1_size                    96 4 refcount_order
 *  40  8 l1_table_offset           100 4 header_length
 *                                  104 1 compression_type        may be absent
 *                                  105   padding or unknown fields, up to header_length; kept
 * </pre>
 *
 * <p>An update of several fields in one 512-byte sector is one write: L1 entries and offset, and
 * refcount table offset and clusters, stand side by side for that.
 */
public final class HeaderLayout {
  /** {@code QFI\xfb}. */
  public static final int MAGIC = 0x514649fb;

  public static final int MAGIC_AT = 0;
  public static final int VERSION_AT = 4;
  public static final int BACKING_OFFSET_AT = 8;
  public static final int BACKING_BYTES_AT = 16;
  public static final int CLUSTER_BITS_AT = 20;
  public static final int VIRTUAL_BYTES_AT = 24;
  public static final int CRYPT_METHOD_AT = 32;
  public static final int L1_ENTRIES_AT = 36;
  public static final int L1_OFFSET_AT = 40;
  public static final int REFCOUNT_TABLE_OFFSET_AT = 48;
  public static final int REFCOUNT_TABLE_CLUSTERS_AT = 56;
  public static final int SNAPSHOT_COUNT_AT = 60;
  public static final int SNAPSHOTS_OFFSET_AT = 64;

  /** The length of a version 2 header. */
  public static final int V2_BYTES = 72;

  public static final int INCOMPATIBLE_AT = 72;
  public static final int COMPATIBLE_AT = 80;
  public static final int AUTOCLEAR_AT = 88;
  public static final int REFCOUNT_ORDER_AT = 96;
  public static final int HEADER_BYTES_AT = 100;

  /** The shortest version 3 header. */
  public static final int V3_BYTES_MIN = 104;

  public static final int COMPRESSION_TYPE_AT = 104;

  /** Where padding or fields that we don't know begin. */
  public static final int TAIL_AT = 105;

  /** The length of the version 3 headers that we make. */
  public static final int V3_BYTES = 112;

  private HeaderLayout() {}
}
