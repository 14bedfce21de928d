package io.qnbd.server.control;

import io.qnbd.server.export.Export;
import java.nio.file.Path;

/**
 * An export that can be asked about.
 *
 * @param format the image's format by its name
 * @param path the image's file
 */
public record ControlledExport(Export export, String format, Path path) {}
