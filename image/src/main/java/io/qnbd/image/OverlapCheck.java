package io.qnbd.image;

/**
 * What is looked at before a damaged or hostile image could make a write go where metadata is. A
 * hit marks the image corrupt, and it takes no more writes.
 */
public enum OverlapCheck {
  /** Nothing, beyond what makes an entry of a table impossible by itself. */
  NONE,
  /**
   * Nothing is written over what stays where it is while the image is open: header, L1 tables,
   * refcount table, snapshot table, bitmap directory, encryption header.
   */
  CONSTANT,
  /**
   * Nor over L2 tables and refcount blocks; and before the first write through a piece of an L2
   * table, what it refers to must be counted as its flags say.
   */
  CACHED,
  /** The same, and an image is opened for writing only if a check of all of it finds no fault. */
  ALL
}
