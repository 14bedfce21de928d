package io.qnbd.protocol;

/**
 * The block sizes of an export in bytes (NBD protocol, "Block size constraints").
 *
 * @param minimum alignment that requests must have: a power of two up to 65536
 * @param preferred alignment at which requests are cheapest: a power of two, at least 512
 * @param maximum the most data of one READ or WRITE
 */
public record BlockSizes(int minimum, int preferred, int maximum) {
  private static final int MINIMUM_MAX = 65536;
  private static final int PREFERRED_MIN = 512;

  public BlockSizes {
    if (Integer.bitCount(minimum) != 1 || minimum < 1 || minimum > MINIMUM_MAX) {
      throw new IllegalArgumentException(
          "minimum block size is " + minimum + ", expected a power of two from 1 to 65536");
    }
    if (Integer.bitCount(preferred) != 1 || preferred < Math.max(PREFERRED_MIN, minimum)) {
      throw new IllegalArgumentException(
          "preferred block size is " + preferred + ", expected a power of two of at least 512");
    }
    if (maximum < preferred || maximum % minimum != 0) {
      throw new IllegalArgumentException(
          "maximum block size is " + maximum + ", expected at least " + preferred);
    }
  }
}
