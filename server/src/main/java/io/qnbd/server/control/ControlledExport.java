package io.qnbd.server.control;

import io.qnbd.server.export.Export;
import java.nio.file.Path;

/**
 * An export that can be asked about.
 *
 * @param format the image's format by its name
 * @param path the image's file
 * @param temporary whether what is written vanishes when it is closed
 * @param chosen whether clients get it that name no export
 * @param origin who asked for it
 */
public record ControlledExport(
    Export export, String format, Path path, boolean temporary, boolean chosen, Origin origin) {

  /** Who asked for an export. */
  public enum Origin {
    COMMAND_LINE("command-line"),
    FILE("file"),
    CONTROL("control");

    private final String text;

    Origin(String text) {
      this.text = text;
    }

    @Override
    public String toString() {
      return text;
    }
  }
}
