package io.qnbd.image;

import java.util.Locale;

/** The formats that can be opened. */
public enum ImageFormat {
  QCOW2,
  RAW;

  /** The name as people write it: {@code qcow2} or {@code raw}. */
  @Override
  public String toString() {
    return name().toLowerCase(Locale.ROOT);
  }
}
