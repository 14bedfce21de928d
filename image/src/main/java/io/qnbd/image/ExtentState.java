package io.qnbd.image;

/**
 * What a range of a disk is made of.
 *
 * @param hole no data is stored for it anywhere in the backing chain, and no space is held for it:
 *     writing to it takes new space
 * @param zero it reads as zeroes. A no says nothing: data may be zeroes too
 * @param depth which image of the chain answers for it: 1 this one (by data or by a mark that says
 *     zeroes), 2 its backing file, and so on; 0 if none does. A raw image answers for all of its
 *     bytes, holes too, and a backing file also for what lies past its end
 */
public record ExtentState(boolean hole, boolean zero, int depth) {
  public ExtentState {
    if (depth < 0) {
      throw new IllegalArgumentException("depth is " + depth);
    }
  }

  /** The same range as an image sees it that has this one's image for its backing file. */
  public ExtentState fromAbove() {
    return depth == 0 ? this : new ExtentState(hole, zero, depth + 1);
  }
}
