package io.qnbd.image;

/**
 * How an image at rest is resized.
 *
 * @param bytes the new size of the disk
 * @param shrink whether the disk may become smaller and lose what lies behind its new end
 * @param preallocation how much of the added space is taken now
 */
public record ResizeOptions(long bytes, boolean shrink, Preallocation preallocation) {}
