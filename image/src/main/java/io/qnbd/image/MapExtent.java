package io.qnbd.image;

/**
 * Where a range of a disk is, in the words of {@code qemu-img map}.
 *
 * @param depth the image of the chain that answers: 0 this one, 1 its backing file, and so on
 * @param present whether that image has something there of its own, if only a mark that says zeroes
 * @param zero it reads as zeroes. A no says nothing: data may be zeroes too
 * @param data bytes are stored for it
 * @param compressed they are compressed
 * @param hostOffset where its first byte is, or goes, in that image's file; {@link #NOWHERE} if it
 *     has no place of its own there
 */
public record MapExtent(
    int depth, boolean present, boolean zero, boolean data, boolean compressed, long hostOffset) {

  /** No offset in the file. */
  public static final long NOWHERE = -1;

  /** The same range as an image sees it that has this one's image for its backing file. */
  public MapExtent fromAbove() {
    return new MapExtent(depth + 1, present, zero, data, compressed, hostOffset);
  }

  /** What is {@code bytes} further on, if it goes on like this. */
  public MapExtent after(long bytes) {
    return hostOffset == NOWHERE
        ? this
        : new MapExtent(depth, present, zero, data, compressed, hostOffset + bytes);
  }
}
