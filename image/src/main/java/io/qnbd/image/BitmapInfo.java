package io.qnbd.image;

/**
 * A persistent dirty bitmap of an image: which parts of the disk were written to since some moment
 * (qcow2 specification, "Bitmaps").
 *
 * @param name unique in the image; 1 to 1023 bytes of UTF-8, none of them zero
 * @param granularityBytes what one bit stands for: a power of two from 512 to 2 GiB
 * @param enabled whether writers are asked to go on recording; a disabled bitmap is kept as it is
 * @param consistent whether it can be believed; the others can be removed
 */
public record BitmapInfo(String name, long granularityBytes, boolean enabled, boolean consistent) {}
