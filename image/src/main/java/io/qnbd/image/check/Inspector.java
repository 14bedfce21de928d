package io.qnbd.image.check;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageReport;
import io.qnbd.image.bitmap.DirtyBitmaps;
import io.qnbd.image.format.FeatureSet;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Describes an image, also one that can't be opened. No file that the image names is opened. */
public final class Inspector {
  private static final Logger LOG = LoggerFactory.getLogger(Inspector.class);

  private Inspector() {}

  /**
   * Reads the header and the snapshot table.
   *
   * @param format what to read the file as, or null to go by its first bytes
   * @param diskBytes bytes that the file takes on the host
   */
  public static ImageReport inspect(
      Path path, Storage storage, @Nullable ImageFormat format, long diskBytes) throws IOException {
    ImageFile file = ImageFile.of(storage);
    ImageFormat readAs = format;
    if (readAs == null) {
      readAs = file.hasQcow2Magic() ? ImageFormat.QCOW2 : ImageFormat.RAW;
    }
    return switch (readAs) {
      case RAW ->
          new ImageReport(path, readAs, file.fileBytes(), file.fileBytes(), diskBytes, null);
      case QCOW2 -> {
        Header header = file.readHeader();
        yield new ImageReport(
            path,
            readAs,
            header.virtualBytes(),
            file.fileBytes(),
            diskBytes,
            details(file, header));
      }
    };
  }

  private static ImageReport.Qcow2Details details(ImageFile file, Header header)
      throws IOException {
    List<ImageReport.Snapshot> snapshots = new ArrayList<>();
    for (SnapshotEntry entry : file.readSnapshots(header).entries()) {
      snapshots.add(describe(entry, header.virtualBytes()));
    }
    return new ImageReport.Qcow2Details(
        header.version(),
        header.clusterBytes(),
        header.refcountBits(),
        header.dirty(),
        header.corrupt(),
        header.lazyRefcounts(),
        header.extendedL2(),
        header.encryptionName(),
        header.compressionName(),
        header.featureNames(FeatureSet.INCOMPATIBLE),
        header.featureNames(FeatureSet.COMPATIBLE),
        header.featureNames(FeatureSet.AUTOCLEAR),
        header.backingFile(),
        header.backingFormat(),
        header.dataFile(),
        snapshots,
        bitmaps(file, header));
  }

  private static List<ImageReport.Bitmap> bitmaps(ImageFile file, Header header)
      throws IOException {
    try {
      return DirtyBitmaps.describe(file, header);
    } catch (CorruptImageException e) {
      LOG.warn("{}, so no bitmaps are shown", e.getMessage());
      return List.of();
    }
  }

  /** A snapshot in the words of the API; one that does not say its disk's size has the image's. */
  public static ImageReport.Snapshot describe(SnapshotEntry entry, long virtualBytes) {
    return new ImageReport.Snapshot(
        entry.idText(),
        entry.nameText(),
        Instant.ofEpochSecond(entry.takenSeconds(), entry.takenNanos()),
        entry.virtualBytes().orElse(virtualBytes),
        entry.vmStateBytes(),
        entry.vmClockNanos());
  }
}
