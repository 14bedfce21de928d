package io.qnbd.server.config;

import io.qnbd.image.OpenOptions;
import io.qnbd.image.Passphrase;
import io.qnbd.server.export.ExportSettings;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * An export as it is asked for.
 *
 * @param settings what may change while it is served; without a description it gets one that names
 *     the image's format
 * @param temporary whether writes go to an overlay that vanishes when the export is closed
 * @param createBytes the size of the image that is made if there is none, or null to make none
 * @param chosen whether clients get it that name no export
 * @param passphraseFile what to read the passphrase from when the image is opened; null for none,
 *     or for the one in {@code open}
 */
public record ExportPlan(
    ExportSettings settings,
    Path path,
    OpenOptions open,
    boolean temporary,
    @Nullable Long createBytes,
    boolean chosen,
    @Nullable Path passphraseFile) {

  /** An export of an image without a passphrase. */
  public ExportPlan(
      ExportSettings settings,
      Path path,
      OpenOptions open,
      boolean temporary,
      @Nullable Long createBytes,
      boolean chosen) {
    this(settings, path, open, temporary, createBytes, chosen, null);
  }

  /** The same with that passphrase, unless it names a file with one. */
  public ExportPlan withPassphrase(@Nullable Passphrase passphrase) {
    OpenOptions with = passphraseFile == null ? open.withPassphrase(passphrase) : open;
    return new ExportPlan(settings, path, with, temporary, createBytes, chosen, passphraseFile);
  }

  /** How to open the image, with the passphrase that its file has now. */
  public OpenOptions openNow() throws IOException {
    return passphraseFile == null ? open : open.withPassphrase(Passphrase.read(passphraseFile));
  }

  /** The export's name. */
  public String name() {
    return settings.name();
  }

  /** Whether an image that was opened for the other plan serves this one as it is. */
  public boolean opensLike(ExportPlan other) {
    return path.equals(other.path)
        && open.equals(other.open)
        && temporary == other.temporary
        && Objects.equals(passphraseFile, other.passphraseFile);
  }
}
