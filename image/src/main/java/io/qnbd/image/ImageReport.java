package io.qnbd.image;

import java.nio.file.Path;
import java.time.Instant;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What an image's header and tables say about it.
 *
 * @param path the file
 * @param format the format that it was read as
 * @param virtualBytes size of the virtual disk in bytes
 * @param fileBytes length of the file in bytes
 * @param diskBytes bytes that the file takes on the host
 * @param qcow2 what only a qcow2 image has, or null
 */
public record ImageReport(
    Path path,
    ImageFormat format,
    long virtualBytes,
    long fileBytes,
    long diskBytes,
    @Nullable Qcow2Details qcow2) {

  /**
   * Details of a qcow2 image.
   *
   * @param version 2 or 3
   * @param incompatibleFeatures names of the incompatible features that are set
   * @param compatibleFeatures names of the compatible features that are set
   * @param autoclearFeatures names of the autoclear features that are set
   * @param encryption {@code none}, {@code aes} or {@code luks}
   * @param compression {@code zlib} or {@code zstd}
   * @param bitmaps persistent dirty bitmaps; none where their directory can't be read, or where the
   *     image was changed by software that knows none
   */
  public record Qcow2Details(
      int version,
      int clusterBytes,
      int refcountBits,
      boolean dirty,
      boolean corrupt,
      boolean lazyRefcounts,
      boolean extendedL2,
      String encryption,
      String compression,
      List<String> incompatibleFeatures,
      List<String> compatibleFeatures,
      List<String> autoclearFeatures,
      @Nullable String backingFile,
      @Nullable String backingFormat,
      @Nullable String dataFile,
      List<Snapshot> snapshots,
      List<Bitmap> bitmaps) {

    public Qcow2Details {
      incompatibleFeatures = List.copyOf(incompatibleFeatures);
      compatibleFeatures = List.copyOf(compatibleFeatures);
      autoclearFeatures = List.copyOf(autoclearFeatures);
      snapshots = List.copyOf(snapshots);
      bitmaps = List.copyOf(bitmaps);
    }
  }

  /**
   * An internal snapshot.
   *
   * @param virtualBytes size of the disk when it was taken
   * @param vmStateBytes bytes of saved machine state
   * @param vmClockNanos the guest's run time when it was taken, in nanoseconds
   */
  public record Snapshot(
      String id,
      String name,
      Instant taken,
      long virtualBytes,
      long vmStateBytes,
      long vmClockNanos) {}

  /**
   * A persistent dirty bitmap, as the file has it.
   *
   * @param inUse an image that is open has changes that are not in it yet; in an image at rest it
   *     was not written to its end and can't be believed
   * @param auto whether it records
   */
  public record Bitmap(String name, long granularityBytes, boolean inUse, boolean auto) {}
}
