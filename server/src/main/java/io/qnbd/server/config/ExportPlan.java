package io.qnbd.server.config;

import io.qnbd.image.OpenOptions;
import io.qnbd.server.export.ExportSettings;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/**
 * An export as it is asked for.
 *
 * @param settings what may change while it is served; without a description it gets one that names
 *     the image's format
 * @param temporary whether writes go to an overlay that vanishes when the export is closed
 * @param createBytes the size of the image that is made if there is none, or null to make none
 * @param chosen whether clients get it that name no export
 */
public record ExportPlan(
    ExportSettings settings,
    Path path,
    OpenOptions open,
    boolean temporary,
    @Nullable Long createBytes,
    boolean chosen) {

  /** The export's name. */
  public String name() {
    return settings.name();
  }

  /** Whether an image that was opened for the other plan serves this one as it is. */
  public boolean opensLike(ExportPlan other) {
    return path.equals(other.path) && open.equals(other.open) && temporary == other.temporary;
  }
}
