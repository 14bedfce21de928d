package io.qnbd.image;

import org.jspecify.annotations.Nullable;

/**
 * Which backing file an image is to have.
 *
 * @param backingFile the name to store, relative to the image's own directory unless absolute; null
 *     for none
 * @param backingFormat its format; required with a backing file
 * @param unsafe whether only the header is changed, so that the disk reads otherwise unless the new
 *     backing file reads as the old one does
 */
public record RebaseOptions(
    @Nullable String backingFile, @Nullable ImageFormat backingFormat, boolean unsafe) {}
