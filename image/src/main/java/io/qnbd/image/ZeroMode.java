package io.qnbd.image;

/** What becomes of the space behind a range that is made to read as zeroes. */
public enum ZeroMode {
  /** The space may be given back to the host. */
  MAY_UNMAP,
  /** The range stays, or becomes, allocated, so that a later write to it needs no new space. */
  KEEP_ALLOCATED
}
