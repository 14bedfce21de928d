package io.qnbd.image;

/**
 * Is told which parts of a read are zeroes and were left out of its buffer. The image may hold
 * locks while it calls: it must not be asked for anything from here.
 */
@FunctionalInterface
public interface ZeroRangeSink {
  /**
   * A range, more than 0 bytes long, that is zeroes.
   *
   * @param at where it begins, counted from the start of the read
   */
  void zeroes(int at, int bytes);
}
