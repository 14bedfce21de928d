package io.qnbd.image.format;

import java.nio.ByteBuffer;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** A header in the making; each setter returns the builder. Not thread-safe. */
public final class HeaderBuilder {
  private int version;
  private int clusterBits;
  private long virtualBytes;
  private int cryptMethod;
  private long l1Offset;
  private int l1Entries;
  private long refcountTableOffset;
  private int refcountTableClusters;
  private int snapshotCount;
  private long snapshotsOffset;
  private long incompatibleFeatures;
  private long compatibleFeatures;
  private long autoclearFeatures;
  private int refcountOrder;
  private int headerBytes;
  private int compressionType;
  private @Nullable String backingFile;
  private List<HeaderExtension> extensions;
  private ByteBuffer tail;

  /** An empty disk of that version: no tables, no features, no extensions, 16-bit refcounts. */
  public HeaderBuilder(int version, int clusterBits) {
    this.version = version;
    this.clusterBits = clusterBits;
    this.refcountOrder = 4;
    this.headerBytes = version == 2 ? HeaderLayout.V2_BYTES : HeaderLayout.V3_BYTES;
    this.extensions = List.of();
    this.tail = ByteBuffer.allocate(Math.max(0, headerBytes - HeaderLayout.TAIL_AT));
  }

  HeaderBuilder(Header from) {
    this.version = from.version();
    this.clusterBits = from.clusterBits();
    this.virtualBytes = from.virtualBytes();
    this.cryptMethod = from.cryptMethod();
    this.l1Offset = from.l1Offset();
    this.l1Entries = from.l1Entries();
    this.refcountTableOffset = from.refcountTableOffset();
    this.refcountTableClusters = from.refcountTableClusters();
    this.snapshotCount = from.snapshotCount();
    this.snapshotsOffset = from.snapshotsOffset();
    this.incompatibleFeatures = from.incompatibleFeatures();
    this.compatibleFeatures = from.compatibleFeatures();
    this.autoclearFeatures = from.autoclearFeatures();
    this.refcountOrder = from.refcountOrder();
    this.headerBytes = from.headerBytes();
    this.compressionType = from.compressionType();
    this.backingFile = from.backingFile();
    this.extensions = from.extensions();
    this.tail = from.tail();
  }

  /** With a header of the usual length for that version, without fields that we don't know. */
  public HeaderBuilder version(int value) {
    version = value;
    headerBytes = value == 2 ? HeaderLayout.V2_BYTES : HeaderLayout.V3_BYTES;
    tail = ByteBuffer.allocate(Math.max(0, headerBytes - HeaderLayout.TAIL_AT));
    return this;
  }

  public HeaderBuilder virtualBytes(long value) {
    virtualBytes = value;
    return this;
  }

  public HeaderBuilder cryptMethod(int value) {
    cryptMethod = value;
    return this;
  }

  public HeaderBuilder l1(long offset, int entries) {
    l1Offset = offset;
    l1Entries = entries;
    return this;
  }

  public HeaderBuilder refcountTable(long offset, int clusters) {
    refcountTableOffset = offset;
    refcountTableClusters = clusters;
    return this;
  }

  public HeaderBuilder snapshots(long offset, int count) {
    snapshotsOffset = offset;
    snapshotCount = count;
    return this;
  }

  public HeaderBuilder incompatibleFeatures(long bits) {
    incompatibleFeatures = bits;
    return this;
  }

  public HeaderBuilder compatibleFeatures(long bits) {
    compatibleFeatures = bits;
    return this;
  }

  public HeaderBuilder autoclearFeatures(long bits) {
    autoclearFeatures = bits;
    return this;
  }

  public HeaderBuilder refcountOrder(int value) {
    refcountOrder = value;
    return this;
  }

  public HeaderBuilder compressionType(int value) {
    compressionType = value;
    return this;
  }

  public HeaderBuilder backingFile(@Nullable String name) {
    backingFile = name;
    return this;
  }

  public HeaderBuilder extensions(List<HeaderExtension> value) {
    extensions = value;
    return this;
  }

  /** The length of the header and what stands in it after the fields that we know. */
  public HeaderBuilder tail(int lengthOfHeader, ByteBuffer bytes) {
    headerBytes = lengthOfHeader;
    tail = bytes;
    return this;
  }

  public Header build() {
    return new Header(
        version,
        clusterBits,
        virtualBytes,
        cryptMethod,
        l1Offset,
        l1Entries,
        refcountTableOffset,
        refcountTableClusters,
        snapshotCount,
        snapshotsOffset,
        incompatibleFeatures,
        compatibleFeatures,
        autoclearFeatures,
        refcountOrder,
        headerBytes,
        compressionType,
        backingFile,
        extensions,
        tail);
  }
}
